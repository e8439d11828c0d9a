// SentencePiece's BPE with byte fallback, as Gemma's tokenizer is: no dummy prefix, spaces kept.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "vocabulary.hpp"

namespace rksim {

class Tokenizer {
 public:
  explicit Tokenizer(const Vocabulary& vocabulary);

  // User-defined pieces are matched first, and so are control pieces: their text becomes their id.
  std::vector<int> encode(const std::string& text) const;

 private:
  struct Symbol {
    int previous, next;
    std::string_view piece;  // empty: merged into its left neighbour
    int whole;               // the id of a piece that was matched first; it takes part in no merge
  };
  struct Pair {
    float score;
    int left, right;
    size_t size;
    bool operator<(const Pair& other) const;
  };
  using Halves = std::map<std::string_view, std::array<std::string_view, 2>>;
  struct Work;

  int match(std::string_view text, size_t& length) const;
  std::vector<Symbol> split(std::string_view text) const;
  void offer(Work& work, int left, int right) const;
  void merge(Work& work) const;
  void append(std::string_view piece, const Halves& halves, std::vector<int>& ids) const;
  void append_bytes(std::string_view piece, std::vector<int>& ids) const;

  const Vocabulary& vocabulary_;
  std::unordered_map<std::string_view, int> pieces_;  // that merges may form
  std::unordered_map<std::string_view, int> whole_;   // matched first
  std::array<std::vector<size_t>, 256> lengths_;      // of those, by first byte, longest first
  std::array<int, 256> bytes_;
  int unknown_ = -1;
};

}  // namespace rksim
