#include "template.hpp"

namespace rksim {
namespace {

constexpr const char* USER = "<start_of_turn>user\n";
constexpr const char* MODEL = "<end_of_turn>\n<start_of_turn>model\n";

}  // namespace

// As in the vendor's library, one's own template ends the automatic one, and with it the tools.
void ChatTemplate::set(const std::string& system, const std::string& prefix, const std::string& postfix) {
  custom_ = true;
  system_ = system;
  prefix_ = prefix;
  postfix_ = postfix;
  tools_.clear();
}

void ChatTemplate::set_tools(const std::string& system, const std::string& tools, const std::string& tool_response) {
  tools_ = system + (system.empty() || tools.empty() ? "" : "\n") + tools;
  tool_response_ = tool_response;
}

Wrapped ChatTemplate::wrap(const std::string& text, const std::string& role, Turn turn) const {
  Wrapped w;
  w.text = text;
  if (turn == Turn::resumed) return w;
  if (role == "tool" && !tool_response_.empty())
    w.text = "<" + tool_response_ + ">\n" + text + "\n</" + tool_response_ + ">";
  const bool first = turn == Turn::first;
  if (custom_) {
    if (first) w.system = tools_.empty() ? system_ : tools_ + "\n\n";
    w.before = prefix_;
    w.after = postfix_;
    return w;
  }
  // An EOS that ended the answer before is not in the cache: a continued conversation closes that turn itself.
  const std::string opened = std::string(first ? "<bos>" : "<end_of_turn>\n") + USER;
  if (first && !tools_.empty()) w.system = opened + tools_ + "\n\n";
  else w.before = opened;
  w.after = MODEL;
  return w;
}

}  // namespace rksim
