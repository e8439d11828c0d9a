// A prompt's ids, keys and values in a file (docs/simulator.md, "Prompt cache file, version 1").
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "model.hpp"

namespace rksim {

class PromptCache {
 public:
  std::vector<int64_t> keys;
  uint64_t adapter = 0;       // under which it was computed
  std::vector<float> values;  // KvCache's block of keys.size() positions; none if nothing was computed

  // Replaces the file as a whole or leaves it alone; false after an E line when it cannot be written.
  bool save(const std::string& path, const Model& model) const;
  void load(const std::string& path, const Model& model, bool computed);  // throws Refused
};

}  // namespace rksim
