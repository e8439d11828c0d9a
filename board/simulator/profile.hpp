// A board described by a profile (docs/simulator.md, "Profile"): what it prints and how it refuses.
#pragma once
#include <cstdint>
#include <string>

#include "board.hpp"

namespace rksim {

// `a:\n  b: 1` is {"a.b": "1"}. Lists and anything else that is no mapping of scalars are passed over.
Values parse_yaml(const std::string& text);

struct Profile {
  Board board;
  std::string platform = "RK3588";
  std::string init = "ok";
  uint64_t init_size = 232128512;  // a buffer of a 9B model that a board refused (digest of failure reports)
  int init_returns = -1;
  int init_delay_ms = 0;
  int token_delay_us = 0;
  long crash_at_token = 0;
  long hang_at_token = 0;
  long error_at_token = 0;
  long spared_runs = 0;  // the first runs of the process, whose tokens those three do not count
  bool compute = true;
  int buffers = 0;                  // file descriptors that a handle keeps open
  bool exclusive_domains = false;   // one handle per IOMMU domain among all that read this profile
  std::string file;                 // of the profile
  Values values;                    // all of it
  // What no public source answers about the real library.
  std::string finish_after_abort = "true";  // true, false, error
  int is_running_busy = 1;
  bool text_bos_twice = false;
  bool kv_half = false, kv_window = false, context_stops = false;
  std::string many_eos = "default";  // default, true, false
  bool template_affects_tokens = false, split_characters = false, null_text = false;
  int callback_after_destroy_ms = 0;
  int threads = 0;    // 0 = min(4, cores)
  uint64_t seed = 0;  // 0 = from the system
};

// From RK_GEMMA_SIM_PROFILE; throws Refused with the line already printed when it cannot be read.
Profile load_profile();

}  // namespace rksim
