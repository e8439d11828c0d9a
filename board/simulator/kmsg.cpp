#include "kmsg.hpp"

#include <fcntl.h>
#include <strings.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>

#include "log.hpp"

namespace rksim {
namespace {

std::string stamped(const std::string& text) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  char stamp[64];
  std::snprintf(stamp, sizeof stamp, "[%5lld.%06ld] ", (long long)now.tv_sec, now.tv_nsec / 1000);
  return stamp + text + "\n";
}

std::string text_of(unsigned long long value) { return std::to_string(value); }

// The driver's dev_err lines carry the NPU's device.
std::string device(const Profile& profile) {
  return strcasecmp(profile.platform.c_str(), "RK3576") == 0 ? "RKNPU 27700000.npu: RKNPU: " : "RKNPU fdab0000.npu: RKNPU: ";
}

// The first line came with the driver that aligns to pages.
std::string no_address(const Outcome& outcome, const Profile& profile) {
  std::string lines;
  if (version_number(profile.board.driver) >= version_number("0.9.8"))
    lines = stamped("RKNPU: failed to allocate IOVA: -12");
  return lines + stamped(device(profile) + "rknpu_gem_get_pages: dma map " + text_of(whole_pages(outcome.bytes)) + " fail");
}

// An unknown domain, or too little contiguous memory.
std::string not_valid(const Outcome& outcome, const Profile& profile) {
  const std::string id = std::to_string(outcome.domain);
  const std::string no_switch = stamped(device(profile) + "failed to switch iommu domain, id: " + id + ", ret: -22");
  if (profile.board.iommu)
    return stamped(device(profile) + "invalid iommu domain id: " + id +
                   ", reuse domain id: " + std::to_string(outcome.current)) + no_switch;
  if (outcome.domain) return no_switch;
  const uint64_t bytes = whole_pages(outcome.bytes);
  return stamped("cma: cma_alloc: reserved: alloc failed, req-size: " + text_of(bytes / PAGE) + " pages, ret: -12") +
         stamped(device(profile) + "failed to allocate " + text_of(bytes) + " buffer.");
}

std::string out_of_memory(const Outcome& outcome) {
  char name[16] = {};
  prctl(PR_GET_NAME, name);
  const std::string task = name, pid = std::to_string(getpid()), uid = std::to_string(getuid());
  return stamped("oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/,"
                 "task=" + task + ",pid=" + pid + ",uid=" + uid) +
         stamped("Out of memory: Killed process " + pid + " (" + task + ") total-vm:" + text_of(outcome.bytes >> 10) +
                 "kB, anon-rss:" + text_of(outcome.bytes >> 10) + "kB, file-rss:0kB, shmem-rss:0kB, UID:" + uid +
                 " pgtables:" + text_of(outcome.bytes >> 19) + "kB oom_score_adj:0");
}

std::string lines_of(const Outcome& outcome, const Profile& profile) {
  if (outcome.killed) return out_of_memory(outcome);
  if (outcome.number == EFAULT) return no_address(outcome, profile);
  if (outcome.number == ENOMEM) return stamped("RKNPU: failed to get pages: -12");
  return not_valid(outcome, profile);
}

}  // namespace

void kernel_says(const Outcome& outcome, const Profile& profile) {
  const char* name = std::getenv("RK_GEMMA_SIM_KMSG");
  if (!name || !*name) return;
  const std::string lines = lines_of(outcome, profile);
  const int fd = open(name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0 || write(fd, lines.data(), lines.size()) != ssize_t(lines.size()))
    warning("simulator: RK_GEMMA_SIM_KMSG: %s: %s", name, std::strerror(errno));
  if (fd >= 0) close(fd);
}

}  // namespace rksim
