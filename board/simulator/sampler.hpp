// From logits to one id: penalties, top_k, top_p, temperature, in this order; the largest logit (lowest id
// on ties) at temperature 0 or top_k 1. With mirostat: penalties, temperature, then candidates as surprising as
// tau asks for, in place of top_k and top_p.
#pragma once
#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

namespace rksim {

struct Sampling {
  int top_k = 40;
  float top_p = 0.9f, temperature = 0.8f;
  float repeat_penalty = 1.1f, frequency_penalty = 0, presence_penalty = 0;
  int mirostat = 0;  // 1 or 2
  float mirostat_tau = 5.0f, mirostat_eta = 0.1f;
};

class Sampler {
 public:
  explicit Sampler(uint64_t seed) : state_(seed) {}
  void accept(int id);  // a prompt or generated token, for the penalties
  void forget();
  int sample(float* logits, int vocab, const Sampling& how);  // changes logits

 private:
  struct Candidate {
    float logit = 0;
    int id = 0;
  };
  void penalise(float* logits, const Sampling& how) const;
  std::vector<Candidate> best(const float* logits, int vocab, int count, bool sorted) const;
  int draw(std::vector<Candidate> candidates, const Sampling& how);
  size_t pick(const std::vector<double>& weights);
  int mirostat(const float* logits, int vocab, const Sampling& how);
  double uniform();

  uint64_t state_;
  double surprise_ = -1;    // mirostat's mu in bits; below zero: not begun
  std::deque<int> recent_;  // the window of the penalties
};

}  // namespace rksim
