// From what the application gives to one entry per position.
#pragma once
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "model.hpp"
#include "profile.hpp"
#include "prompt.hpp"
#include "release.hpp"
#include "template.hpp"
#include "tokenizer.hpp"

namespace rksim {

// The application's tokenizer: the number of ids written, or below zero.
using Tokenize = std::function<int(const std::string& text, int* ids, int most)>;

class Assembler {
 public:
  Assembler(const Model& model, const Profile& profile, const Layout& layout, int context, Tokenize tokenize)
      : model_(model), profile_(profile), layout_(layout), context_(context), tokenize_(std::move(tokenize)) {}

  Prompt assemble(const Input& input, Turn turn) const;  // throws Refused
  ChatTemplate chat;

 private:
  struct Draft;
  Wrapped wrapped(const Input& input, Turn turn) const;
  std::vector<int> tokens(const std::string& text) const;
  std::vector<int> tokens_elsewhere(const std::string& text) const;
  void add_text(const std::string& text, Draft& draft) const;
  void add_ids(const std::vector<int>& ids, Draft& draft) const;
  void add_rows(const float* rows, size_t count, Draft& draft) const;
  void add_media(const std::string& text, const Input& input, Draft& draft) const;
  void add_tokens(const Input& input, Turn turn, Draft& draft) const;
  void begin(const Wrapped& w, Turn turn, Draft& draft) const;
  Prompt finished(Draft& draft) const;

  const Model& model_;
  const Profile& profile_;
  const Layout& layout_;
  int context_;
  Tokenize tokenize_;
  mutable std::once_flag built_;
  mutable std::unique_ptr<const Tokenizer> tokenizer_;  // 256,000 pieces: only for who sends text
};

}  // namespace rksim
