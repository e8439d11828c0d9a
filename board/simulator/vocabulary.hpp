// Texts by token id: what a token prints (`pieces`), and the tokenizer's own (`vocab`, `scores`, `types`).
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace rksim {

class SimFile;

// A u8 tensor that holds, for each id, a u16 length and that many bytes.
class Texts {
 public:
  void read(const SimFile& file, const char* tensor, int count);  // throws Refused
  bool empty() const { return at_.empty(); }
  std::string_view operator[](int id) const;

 private:
  const uint8_t* base_ = nullptr;
  std::vector<uint32_t> at_;  // where each id's bytes begin
};

enum class Kind : uint8_t { normal = 1, unknown, control, user_defined, unused, byte };  // SentencePiece's numbers

class Vocabulary {
 public:
  void read(const SimFile& file, int count);  // nothing if the file has no tokenizer; throws Refused
  bool empty() const { return texts_.empty(); }
  int size() const { return count_; }
  std::string_view text(int id) const { return texts_[id]; }
  float score(int id) const { return scores_[id]; }
  Kind kind(int id) const { return Kind(types_[id]); }

 private:
  Texts texts_;
  const float* scores_ = nullptr;
  const uint8_t* types_ = nullptr;
  int count_ = 0;
};

}  // namespace rksim
