#include "vocabulary.hpp"

#include <cmath>

#include "errors.hpp"
#include "log.hpp"
#include "simfile.hpp"

namespace rksim {

void Texts::read(const SimFile& file, const char* tensor, int count) {
  base_ = static_cast<const uint8_t*>(file.data(tensor, "u8", 1, -1));
  const size_t bytes = file.tensor(tensor).bytes;
  size_t at = 0;
  at_.reserve(size_t(count));
  for (int id = 0; id < count; id++) {
    if (bytes - at < 2) RKSIM_REFUSE("error loading model vocabulary: ");
    const size_t length = size_t(base_[at]) | size_t(base_[at + 1]) << 8;
    if (bytes - at - 2 < length) RKSIM_REFUSE("error loading model vocabulary: ");
    at_.push_back(uint32_t(at + 2));
    at += 2 + length;
  }
  if (at != bytes) RKSIM_REFUSE("error loading model vocabulary: ");
}

std::string_view Texts::operator[](int id) const {
  const uint8_t* text = base_ + at_[size_t(id)];
  return {reinterpret_cast<const char*>(text), size_t(text[-2]) | size_t(text[-1]) << 8};
}

void Vocabulary::read(const SimFile& file, int count) {
  if (!file.has("vocab")) return;
  scores_ = static_cast<const float*>(file.data("scores", "f32", 1, count));
  types_ = static_cast<const uint8_t*>(file.data("types", "u8", 1, count));
  for (int id = 0; id < count; id++)
    if (std::isnan(scores_[id]) || types_[id] < uint8_t(Kind::normal) || types_[id] > uint8_t(Kind::byte))
      RKSIM_REFUSE("error loading model vocabulary: ");
  texts_.read(file, "vocab", count);
  count_ = count;
}

}  // namespace rksim
