// The performance table of RKLLM_LOG_LEVEL=1, and the figures in it.
#pragma once
#include "session.hpp"

namespace rksim {

float peak_memory_mb();  // VmHWM of this process, as the vendor reports it
void print_table(const Perf& perf, float init_ms, const Layout& layout);
void print_prompt(const std::vector<int>& ids);

}  // namespace rksim
