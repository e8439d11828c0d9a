// The one exception of the simulator: the reason is already printed, the call returns -1.
#pragma once
#include <stdexcept>

namespace rksim {

struct Refused : std::runtime_error {
  Refused() : std::runtime_error("refused") {}
};

// Prints an E line and throws.
#define RKSIM_REFUSE(...)        \
  do {                           \
    ::rksim::error(__VA_ARGS__); \
    throw ::rksim::Refused();    \
  } while (0)

}  // namespace rksim
