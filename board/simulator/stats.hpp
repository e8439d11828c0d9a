// The performance table of RKLLM_LOG_LEVEL=1, and the figures in it.
#pragma once
#include "session.hpp"

namespace rksim {

float peak_memory_mb();  // VmHWM of this process, as the vendor reports it
void print_table(const Perf& perf, float init_ms, const Layout& layout);
// RKLLM_LOG_LEVEL=2: the ids, rows as their number, and what the cache holds.
void print_prompt(const Prompt& prompt, int cached, bool keep_history);

}  // namespace rksim
