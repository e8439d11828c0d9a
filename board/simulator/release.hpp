// What differs between layouts beyond structs.
#pragma once

namespace rksim {

// Releases in their order; a beta N counts N in place of 9. generate_layout.py counts alike.
constexpr int release(int major, int minor, int patch) { return ((major * 100 + minor) * 100 + patch) * 10 + 9; }

struct Layout {
  const char* version;
  int number;
  bool prints_model() const { return number >= release(1, 2, 0); }  // 1.1.x logs hold the runtime line only
  bool prints_dtype() const { return number >= release(1, 2, 1); }
  bool reuses_prefix() const { return number >= release(1, 2, 0); }
  bool reuses_rows() const { return number >= release(1, 2, 1); }  // 1.2.3, whose layout 1.2.1 is
  bool templates_text() const { return number >= release(1, 2, 0); }
  bool counts_images() const { return number > release(1, 2, 0); }
  bool many_eos() const { return number >= release(1, 3, 0); }
  bool logits_need_an_empty_cache() const { return number == release(1, 2, 1); }  // 1.2.3 aborts in soft_max
  bool keeps_outputs() const { return number >= release(1, 3, 0); }
};

}  // namespace rksim
