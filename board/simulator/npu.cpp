#include "npu.hpp"

#include <unistd.h>

#include <atomic>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <thread>

#include "device.hpp"
#include "errors.hpp"
#include "log.hpp"

namespace rksim {
namespace {

constexpr const char* LEAST_DRIVER = "0.9.7";  // the literal the vendor's library compares with

[[noreturn]] void hang() {
  for (;;) pause();
}

std::string upper(std::string text) {
  for (char& c : text) c = char(std::toupper((unsigned char)c));
  return text;
}

std::string cpu_list(unsigned mask) {
  std::string list;
  for (int cpu = 0; cpu < 32; cpu++)
    if (mask >> cpu & 1) list += (list.empty() ? "" : ", ") + std::to_string(cpu);
  return list;
}

}  // namespace

void crash() {
  static volatile std::atomic<int*> nowhere{nullptr};
  for (;;) *const_cast<volatile int*>(nowhere.load()) = 1;
}

bool greet(const Profile& profile, const Layout& layout, const std::string& path) {
  const std::string& driver = profile.board.driver;
  warning("this is the rk-gemma simulator, not Rockchip's library: no NPU is used");
  if (profile.init == "ok" && !profile.board.reachable) {
    say_no_device(layout);
    return false;
  }
  if (version_number(driver) < version_number(LEAST_DRIVER))
    warning("Warning: Your rknpu driver version is too low, please upgrade to %s%s", LEAST_DRIVER,
            layout.prints_model() ? "" : ".\n");
  info("rkllm-runtime version: %s, rknpu driver version: %s, platform: %s", layout.version, driver.c_str(),
       profile.platform.c_str());
  if (layout.prints_model()) info("loading rkllm model from %s", path.c_str());
  return true;
}

void accept_model(const Config& c, const InitParam& param, const Profile& profile, const Layout& layout) {
  if (param.max_context > c.context)
    RKSIM_REFUSE("max_context[%d] must be less than the model's max_context_limit[%d]", param.max_context, c.context);
  if (upper(c.platform) != upper(profile.platform))
    RKSIM_REFUSE("the model's target_platform does not match the real platform");
  if (!layout.prints_model()) return;
  const std::string dtype = layout.prints_dtype() ? ", model_dtype: " + upper(c.dtype) : "";
  info("rkllm-toolkit version: %s, max_context_limit: %d, npu_core_num: %d, target_platform: %s%s",
       c.toolkit.c_str(), c.context, c.npu_cores, c.platform.c_str(), dtype.c_str());
}

bool refuses_init(const Profile& profile, const Layout& layout) {
  std::this_thread::sleep_for(std::chrono::milliseconds(profile.init_delay_ms));
  if (profile.init == "ok") return false;
  if (profile.init == "silent_fail") {
    say_no_memory(EFAULT, profile.init_size);
    raw_error("rknn_init fail! ret=-1");
    return false;
  }
  if (profile.init == "crash") crash();
  if (profile.init == "hang") hang();
  if (profile.init == "exit") {
    std::fflush(nullptr);
    _exit(1);
  }
  if (profile.init == "iova") say_no_memory(EFAULT, profile.init_size);
  if (profile.init == "ram") say_no_memory(ENOMEM, profile.init_size);
  if (profile.init == "load_error") npu_error("load model file error!");
  if (profile.init == "iova" || profile.init == "ram") say_init_failed(layout);
  return true;
}

void enable_cpus(const InitParam& param, const Config& config, const Layout& layout) {
  if (!layout.prints_model()) return;
  info("Enabled cpus: [%s]", cpu_list(param.cpu_mask).c_str());
  info("Enabled cpus num: %d", param.cpus);
  if (param.cpus < 1 || param.cpus > 8)
    RKSIM_REFUSE("Expected The number of enabled CPUs between 1 and 8 for %s, but got %d.", config.platform.c_str(),
                 param.cpus);
  if (param.cpus < config.npu_cores)
    RKSIM_REFUSE("The number of enabled CPUs must be greater than or equal to the number of NPU cores.");
  if (__builtin_popcount(param.cpu_mask) != param.cpus)
    RKSIM_REFUSE("Mismatch between enabled CPUs mask and expected count. Please check the configuration.");
}

bool spared_run(const Profile& profile) {
  static std::atomic<long> runs{0};
  return ++runs <= profile.spared_runs;
}

bool faulty_token(const Profile& profile) {
  static std::atomic<long> tokens{0};
  const long token = ++tokens;
  if (token == profile.crash_at_token) crash();
  if (token == profile.hang_at_token) hang();
  return token == profile.error_at_token;
}

}  // namespace rksim
