// What a run is given: text, tokens or rows, and what becomes of them: one entry per position.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace rksim {

// A token, or a row of floats that enters the first layer as it is.
struct Entry {
  int64_t key = 0;             // the token's id; below zero: a hash of the row
  const float* row = nullptr;  // [hidden]; none for a token
};

struct Prompt {
  std::vector<Entry> entries;
  std::shared_ptr<const std::vector<float>> rows;  // what the entries point into
  size_t system = 0;                               // leading entries that are the system prompt
};

// Images, videos or sounds of a multimodal input: each `<tag>` stands for start, per_item rows, end.
struct Media {
  std::string tag;
  size_t per_item = 0, items = 0;
  std::string start, end;
  std::vector<float> rows;
};

enum class InputKind { text, tokens, rows, multimodal };

// The application's input, copied: an asynchronous run outlives the call.
struct Input {
  InputKind kind = InputKind::tokens;
  std::string text, role;
  std::vector<int> ids;
  std::vector<float> rows;
  std::vector<Media> media;
};

}  // namespace rksim
