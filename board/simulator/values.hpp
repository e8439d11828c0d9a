// Reading a profile's values: each absent or empty one leaves its default, an unreadable one refuses init.
#pragma once
#include <cerrno>
#include <cstdlib>
#include <map>
#include <string>

#include "errors.hpp"
#include "log.hpp"

namespace rksim {

using Values = std::map<std::string, std::string>;

template <typename T, typename F>
void take(const Values& values, const std::string& key, T& into, F parse) {
  const auto found = values.find(key);
  if (found == values.end() || found->second.empty()) return;
  if (!parse(found->second, into))
    RKSIM_REFUSE("simulator profile: %s cannot be '%s'", key.c_str(), found->second.c_str());
}

template <typename T>
bool number(const std::string& text, T& into) {
  char* end = nullptr;
  errno = 0;
  const long long value = std::strtoll(text.c_str(), &end, 10);
  into = T(value);
  return errno == 0 && *end == '\0' && (long long)into == value;
}

inline bool flag(const std::string& text, bool& into) {
  into = text == "true" || text == "yes" || text == "on";
  return into || text == "false" || text == "no" || text == "off";
}

inline bool word(const std::string& text, std::string& into) {
  into = text;
  return true;
}

// One of these words.
template <typename T, typename... Words>
auto one_of(T meaning, Words... words) {
  return [=](const std::string& text, auto& into) {
    into = meaning(text);
    return ((text == words) || ...);
  };
}

inline std::string word_of(const std::string& text) { return text; }

// True for the second of two words.
inline auto either(const char* plain, const char* special) {
  return one_of([=](const std::string& text) { return text == special; }, plain, special);
}

}  // namespace rksim
