// What a live handle holds of the NPU: its buffers' file descriptors and its IOMMU domain.
#pragma once
#include <vector>

#include "profile.hpp"
#include "release.hpp"

namespace rksim {

class Device {
 public:
  // Throws Refused with the vendor's lines printed when a descriptor or the domain cannot be had.
  Device(const Profile& profile, const Layout& layout, int domain);
  ~Device() { release(); }
  Device(const Device&) = delete;
  void release();

 private:
  void claim_domain(const Profile& profile, int domain);

  std::vector<int> descriptors_;
};

// `failed to allocate handle`, `failed to malloc npu memory` and what follows them at init.
void say_no_memory(int number, const Profile& profile);
void say_init_failed(const Layout& layout);

}  // namespace rksim
