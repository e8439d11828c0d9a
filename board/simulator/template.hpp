// The chat template: what stands around a text before it is tokenised.
#pragma once
#include <string>

namespace rksim {

enum class Turn { first, continued, resumed };

// The prompt is system + before + text + after.
struct Wrapped {
  std::string system, before, text, after;
};

class ChatTemplate {
 public:
  void set(const std::string& system, const std::string& prefix, const std::string& postfix);
  void set_tools(const std::string& system, const std::string& tools, const std::string& tool_response);
  // Three empty strings: texts go in as they are.
  bool empty() const { return custom_ && (system_ + prefix_ + postfix_).empty(); }
  Wrapped wrap(const std::string& text, const std::string& role, Turn turn) const;

 private:
  bool custom_ = false;
  std::string system_, prefix_, postfix_;  // of rkllm_set_chat_template
  std::string tools_, tool_response_;      // of rkllm_set_function_tools
};

}  // namespace rksim
