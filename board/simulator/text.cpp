#include "text.hpp"

#include <utility>

namespace rksim {
namespace {

// Length a first byte announces; 1 for bytes that begin nothing, which are printed as they are.
size_t announced(unsigned char first) {
  if (first >= 0xf0 && first < 0xf8) return 4;
  if (first >= 0xe0 && first < 0xf0) return 3;
  if (first >= 0xc2 && first < 0xe0) return 2;
  return 1;
}

bool ends_inside_a_character(const std::string& text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); back++) {
    const unsigned char byte = (unsigned char)text[text.size() - back];
    if ((byte & 0xc0) == 0x80) continue;
    return announced(byte) > back;
  }
  return false;
}

}  // namespace

bool Characters::add(std::string_view bytes) {
  held_ += bytes;
  return !ends_inside_a_character(held_);
}

void Characters::take(std::string& into) { std::swap(held_, into); }

}  // namespace rksim
