#include "profile.hpp"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <utility>
#include <vector>

#include "values.hpp"

namespace rksim {
namespace {

std::string trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

// A scalar without its quotes, or without the comment behind it.
std::string scalar(const std::string& text) {
  const std::string value = trimmed(text);
  if (!value.empty() && (value[0] == '"' || value[0] == '\'')) {
    const size_t end = value.find(value[0], 1);
    return end == std::string::npos ? value.substr(1) : value.substr(1, end - 1);
  }
  if (!value.empty() && value[0] == '#') return "";
  return trimmed(value.substr(0, value.find(" #")));
}

void take_refusals(const Values& values, Profile& p) {
  take(values, "simulator.init", p.init,
       one_of(word_of, "ok", "iova", "ram", "load_error", "fail", "crash", "hang", "exit", "silent_fail"));
  take(values, "simulator.init_size", p.init_size, number<uint64_t>);
  take(values, "simulator.init_returns", p.init_returns, number<int>);
  take(values, "simulator.init_delay_ms", p.init_delay_ms, number<int>);
  take(values, "simulator.token_delay_us", p.token_delay_us, number<int>);
  take(values, "simulator.crash_at_token", p.crash_at_token, number<long>);
  take(values, "simulator.hang_at_token", p.hang_at_token, number<long>);
  take(values, "simulator.error_at_token", p.error_at_token, number<long>);
  take(values, "simulator.spared_runs", p.spared_runs, number<long>);
  take(values, "simulator.buffers", p.buffers, number<int>);
  take(values, "simulator.exclusive_domains", p.exclusive_domains, flag);
}

void take_open_questions(const Values& values, Profile& p) {
  take(values, "simulator.finish_after_abort", p.finish_after_abort, one_of(word_of, "true", "false", "error"));
  take(values, "simulator.is_running_busy", p.is_running_busy, [](const std::string& text, int& into) {
    return number<int>(text, into) && (into == 0 || into == 1);
  });
  take(values, "simulator.text_bos", p.text_bos_twice, either("once", "twice"));
  take(values, "simulator.kv_dtype", p.kv_half, either("f32", "f16"));
  take(values, "simulator.kv_sliding", p.kv_window, either("full", "window"));
  take(values, "simulator.context_full", p.context_stops, either("shift", "stop"));
  take(values, "simulator.many_eos", p.many_eos, one_of(word_of, "default", "true", "false"));
  take(values, "simulator.template_affects_tokens", p.template_affects_tokens, flag);
  take(values, "simulator.split_characters", p.split_characters, flag);
  take(values, "simulator.null_text", p.null_text, flag);
  take(values, "simulator.callback_after_destroy_ms", p.callback_after_destroy_ms, number<int>);
}

Profile from_values(const Values& values) {
  Profile p;
  p.values = values;
  p.board = read_board(values);
  p.buffers = p.board.descriptors;
  take(values, "npu.platform", p.platform, word);
  take_refusals(values, p);
  take_open_questions(values, p);
  take(values, "simulator.compute", p.compute, flag);
  take(values, "simulator.threads", p.threads, number<int>);
  take(values, "simulator.seed", p.seed, number<uint64_t>);
  return p;
}

}  // namespace

Values parse_yaml(const std::string& text) {
  Values values;
  std::vector<std::pair<size_t, std::string>> path;  // indentation and key of each open mapping
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const size_t indent = line.find_first_not_of(' ');
    const size_t colon = line.find(':');
    if (indent == std::string::npos || line[indent] == '#' || line[indent] == '-') continue;
    if (colon == std::string::npos) continue;
    while (!path.empty() && path.back().first >= indent) path.pop_back();
    path.emplace_back(indent, scalar(line.substr(indent, colon - indent)));
    std::string key;
    for (const auto& part : path) key += (key.empty() ? "" : ".") + part.second;
    const std::string value = scalar(line.substr(colon + 1));
    if (!value.empty()) values[key] = value;
  }
  return values;
}

Profile load_profile() {
  const char* name = std::getenv("RK_GEMMA_SIM_PROFILE");
  if (!name || !*name) return Profile();
  std::ifstream file(name);
  if (!file) RKSIM_REFUSE("failed to open '%s': '%s'", name, std::strerror(errno));
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  Profile profile = from_values(parse_yaml(text));
  profile.file = name;
  return profile;
}

}  // namespace rksim
