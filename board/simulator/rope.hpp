// Rotary positions: the two halves of a head turn by position * theta^(-2i / head_dim).
#pragma once
#include <cmath>
#include <vector>

#include "model.hpp"

namespace rksim {

class Rope {
 public:
  explicit Rope(const Config& c) {
    for (int i = 0; i < c.head_dim / 2; i++)
      frequency_.push_back(float(1.0 / std::pow(double(c.rope_theta), 2.0 * double(i) / c.head_dim)));
  }

  size_t half() const { return frequency_.size(); }

  // half() cosines and sines of a position, or of a difference of two.
  void angles(int position, float* cosine, float* sine) const {
    for (size_t i = 0; i < half(); i++) {
      const float angle = float(position) * frequency_[i];
      cosine[i] = float(std::cos(double(angle)));
      sine[i] = float(std::sin(double(angle)));
    }
  }

  void turn(float* head, const float* cosine, const float* sine) const {
    for (size_t i = 0; i < half(); i++) {
      const float a = head[i], b = head[i + half()];
      head[i] = a * cosine[i] - b * sine[i];
      head[i + half()] = b * cosine[i] + a * sine[i];
    }
  }

 private:
  std::vector<float> frequency_;
};

}  // namespace rksim
