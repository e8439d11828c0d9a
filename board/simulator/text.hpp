// Bytes of tokens to whole characters.
#pragma once
#include <string>
#include <string_view>

namespace rksim {

class Characters {
 public:
  // Takes a token's bytes. True: take() has text to print; false: the last character is not whole yet.
  bool add(std::string_view bytes);
  void take(std::string& into);  // empty before
  void forget() { held_.clear(); }

 private:
  std::string held_;
};

}  // namespace rksim
