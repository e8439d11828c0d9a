#include "stats.hpp"

#include <cstdio>
#include <fstream>
#include <string>

#include "log.hpp"

namespace rksim {
namespace {

void rule() { info("--------------------------------------------------------------------------------------"); }

void row(const char* stage, float ms, int tokens) {
  info(" %-12s  %-15.2f  %-8d  %-23.2f  %-23.2f", stage, double(ms), tokens, double(tokens ? ms / float(tokens) : 0),
       double(ms > 0 ? 1000 * float(tokens) / ms : 0));
}

}  // namespace

float peak_memory_mb() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    long kilobytes = 0;
    if (std::sscanf(line.c_str(), "VmHWM: %ld", &kilobytes) == 1) return float(kilobytes) / 1024;
  }
  return 0;
}

void print_table(const Perf& perf, float init_ms, const Layout& layout) {
  rule();
  info(" %-12s  %-15s  %-8s  %-23s  %-23s", "Stage", "Total Time (ms)", "Tokens", "Time per Token (ms)",
       "Tokens per Second");
  rule();
  info(" %-12s  %-15.2f  %-8s  %-23s  %-23s", "Init", double(init_ms), "/", "/", "/");
  row("Prefill", perf.prefill_ms, perf.prefill_tokens);
  row("Generate", perf.generate_ms, perf.generate_tokens);
  rule();
  const bool megabytes = layout.number >= 10300;
  info(" %-12s", megabytes ? "Peak Memory Usage (MB)" : "Memory Usage (GB)");
  info(" %-12.2f", double(megabytes ? perf.memory_mb : perf.memory_mb / 1024));
  rule();
}

void print_prompt(const Prompt& prompt, int cached, bool keep_history) {
  std::string text;
  for (const Entry& entry : prompt.entries)
    text += (text.empty() ? "" : ", ") + (entry.key < 0 ? std::string("embed") : std::to_string(entry.key));
  info("current kv cache size: %d", cached);
  info("keep history status: %d", int(keep_history));
  info("prompt tokens: %s, total: %lu", text.c_str(), (unsigned long)prompt.entries.size());
  if (prompt.system)
    info("In this conversation: the newly added user cache size is %d; system cache size is %d",
         int(prompt.entries.size() - prompt.system), int(prompt.system));
}

}  // namespace rksim
