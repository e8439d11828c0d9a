#include "device.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "errors.hpp"
#include "kmsg.hpp"
#include "log.hpp"

namespace rksim {

void say_no_memory(int number, uint64_t bytes) {
  npu_error("failed to allocate handle, ret: -1, errno: %d, errstr: %s", number, std::strerror(number));
  npu_error("failed to malloc npu memory, size: %llu, flags: 0x2", (unsigned long long)bytes);
  npu_error("load model file error!");
}

void say_init_failed(const Layout& layout) {
  if (layout.prints_model()) error("rkllm_init failed");
  else raw_error("rknn_init fail! ret=-1");
}

void say_no_device(const Layout& layout) {
  npu_error("failed to open rknpu module, need to insmod rknpu dirver!");
  npu_error("failed to open rknn device!");
  say_init_failed(layout);
}

Device::Device(const Profile& profile, const Layout& layout, const Need& need, int domain) {
  try {
    if (profile.exclusive_domains) claim_domain(profile, domain);
    open_descriptors(profile);
    if (profile.init == "ok") take_memory(profile, need, domain);
  } catch (const Refused&) {
    release();
    say_init_failed(layout);
    throw;
  }
}

void Device::open_descriptors(const Profile& profile) {
  for (int i = 0; i < profile.buffers; i++) {
    const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
      say_no_memory(errno, profile.init_size);
      throw Refused();
    }
    descriptors_.push_back(fd);
  }
}

void Device::take_memory(const Profile& profile, const Need& need, int domain) {
  const Outcome outcome = memory_.take(profile.board, need, domain);
  if (!outcome.number && !outcome.killed) return;
  kernel_says(outcome, profile);
  if (outcome.killed) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
  }
  say_no_memory(outcome.number, outcome.bytes);
  throw Refused();
}

void Device::release() {
  for (const int fd : descriptors_) close(fd);
  descriptors_.clear();
  memory_.release();
}

// An abstract socket's name is taken by one socket at a time and comes free when its process dies, however.
void Device::claim_domain(const Profile& profile, int domain) {
  struct stat status{};
  const int fd = stat(profile.file.c_str(), &status) == 0 ? socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;
  if (fd < 0) RKSIM_REFUSE("simulator profile: exclusive_domains: %s", std::strerror(errno));
  descriptors_.push_back(fd);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const int length = std::snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "rk-gemma-simulator-%llx-%llx-%d",
                                   (unsigned long long)status.st_dev, (unsigned long long)status.st_ino, domain);
  const auto size = socklen_t(offsetof(sockaddr_un, sun_path) + 1 + size_t(length));
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), size) == 0) return;
  say_no_memory(EFAULT, profile.init_size);
  throw Refused();
}

}  // namespace rksim
