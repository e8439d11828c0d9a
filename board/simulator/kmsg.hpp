// The kernel's side of a refusal, in the file that RK_GEMMA_SIM_KMSG names: lines as dmesg shows them.
#pragma once
#include "holding.hpp"
#include "profile.hpp"

namespace rksim {

void kernel_says(const Outcome& outcome, const Profile& profile);

}  // namespace rksim
