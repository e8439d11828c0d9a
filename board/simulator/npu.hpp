// The NPU that is not there: what init prints, what it checks, and how it refuses.
#pragma once
#include <string>

#include "model.hpp"
#include "profile.hpp"

namespace rksim {

// What differs between layouts beyond structs. The number is 10300 for 1.3.0.
struct Layout {
  const char* version;
  int number;
  bool prints_model() const { return number >= 10200; }  // 1.1.x logs hold the runtime line only
  bool prints_dtype() const { return number >= 10201; }
  bool reuses_prefix() const { return number >= 10200; }
  bool many_eos() const { return number >= 10300; }
};

struct InitParam {
  std::string path;
  int max_context = 0, max_new_tokens = -1, n_keep = -1;
  int base_domain = 0;
  int cpus = 4;               // enabled_cpus_num
  unsigned cpu_mask = 0xf0;   // enabled_cpus_mask
  bool ignore_eos = false, is_async = false;
};

// The lines before the file is read.
void greet(const Profile& profile, const Layout& layout, const std::string& path);

// Checks of the file against the board and the request, then its own line.
void accept_model(const Config& config, const InitParam& param, const Profile& profile, const Layout& layout);

// What the profile says about init. True: refused, and init returns profile.init_returns.
bool refuses_init(const Profile& profile, const Layout& layout);

void enable_cpus(const InitParam& param, const Config& config, const Layout& layout);

// crash_at_token and hang_at_token count the tokens of the process. True: this token fails.
bool faulty_token(const Profile& profile, const std::string& dtype);

}  // namespace rksim
