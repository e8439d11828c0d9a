// The NPU that is not there: what init prints, what it checks, and how it refuses.
#pragma once
#include <string>

#include "model.hpp"
#include "profile.hpp"
#include "release.hpp"
#include "sampler.hpp"

namespace rksim {

struct InitParam {
  std::string path;
  int max_context = 0, max_new_tokens = -1, n_keep = -1;
  int base_domain = 0, embed_flash = 1;
  int cpus = 4;               // enabled_cpus_num
  unsigned cpu_mask = 0xf0;   // enabled_cpus_mask
  int batch = 1;
  bool ignore_eos = false, is_async = false, skip_special = true;
  std::string image_start, image_end, image_content;  // before 1.3.0
  Sampling sampling;
};

// A real fault, not raise(): the kernel's line and the signal's cause are those of a broken pointer.
[[noreturn]] void crash();

// The parameters, at RKLLM_LOG_LEVEL=2.
void echo(const InitParam& param, const Layout& layout);

// The lines before the file is read. False: there is no NPU to open.
bool greet(const Profile& profile, const Layout& layout, const std::string& path);

// Checks of the file against the board and the request, then its own line.
void accept_model(const Config& config, const InitParam& param, const Profile& profile, const Layout& layout);

// What the profile says about init. True: refused, and init returns profile.init_returns.
bool refuses_init(const Profile& profile, const Layout& layout);

void enable_cpus(const InitParam& param, const Config& config, const Layout& layout);

// Asked once a run that makes tokens: whether they are left out of the count below.
bool spared_run(const Profile& profile);

// crash_at_token and hang_at_token count the tokens of the process. True: this token fails.
bool faulty_token(const Profile& profile);

}  // namespace rksim
