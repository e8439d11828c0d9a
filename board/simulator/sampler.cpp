#include "sampler.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include "kernels.hpp"

namespace rksim {
namespace {

constexpr size_t WINDOW = 64;  // the usual length of the penalty window in llama.cpp, which the vendor embeds

bool neutral(const Sampling& how) {
  return how.repeat_penalty == 1.0f && how.frequency_penalty == 0 && how.presence_penalty == 0;
}

}  // namespace

void Sampler::accept(int id) {
  recent_.push_back(id);
  if (recent_.size() > WINDOW) recent_.pop_front();
}

void Sampler::penalise(float* logits, const Sampling& how) const {
  if (neutral(how)) return;
  std::map<int, int> counts;
  for (int id : recent_) counts[id]++;
  for (const auto& [id, count] : counts) {
    float& logit = logits[id];
    logit = logit > 0 ? logit / how.repeat_penalty : logit * how.repeat_penalty;
    logit -= how.frequency_penalty * float(count) + how.presence_penalty;
  }
}

// The `count` largest logits, best first, the lower id first among equals; all of them as they come when
// neither top_k nor top_p will cut.
std::vector<Sampler::Candidate> Sampler::best(const float* logits, int vocab, int count, bool sorted) const {
  const auto better = [](const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
  };
  std::vector<Candidate> heap;  // its top is the worst one kept
  heap.reserve(size_t(count) + 1);
  for (int id = 0; id < vocab; id++) {
    const Candidate c{logits[id], id};
    if (std::isnan(c.logit) || (int(heap.size()) == count && !better(c, heap.front()))) continue;
    heap.push_back(c);
    if (count == vocab) continue;
    std::push_heap(heap.begin(), heap.end(), better);
    if (int(heap.size()) <= count) continue;
    std::pop_heap(heap.begin(), heap.end(), better);
    heap.pop_back();
  }
  if (sorted) std::sort(heap.begin(), heap.end(), better);
  return heap;
}

// splitmix64: tiny, and the same on every machine for one seed.
double Sampler::uniform() {
  uint64_t z = state_ += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return double((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

int Sampler::draw(std::vector<Candidate> candidates, const Sampling& how) {
  if (candidates.empty()) return 0;
  float top = candidates[0].logit;
  for (const auto& c : candidates) top = std::max(top, c.logit);
  if (how.top_p < 1.0f) {
    double whole = 0, kept = 0;
    for (const auto& c : candidates) whole += std::exp(double(c.logit - top));
    size_t count = 0;
    while (count < candidates.size() && (count == 0 || kept < double(how.top_p) * whole))
      kept += std::exp(double(candidates[count++].logit - top));
    candidates.resize(count);
  }
  std::vector<double> weights;
  for (const auto& c : candidates) weights.push_back(std::exp(double(c.logit - top) / double(how.temperature)));
  double at = 0;
  for (double weight : weights) at += weight;
  at *= uniform();
  for (size_t i = 0; i < weights.size(); i++)
    if ((at -= weights[i]) < 0) return candidates[i].id;
  return candidates.back().id;
}

int Sampler::sample(float* logits, int vocab, const Sampling& how) {
  penalise(logits, how);
  if (!(how.temperature > 0) || how.top_k == 1) return kernels().argmax(logits, vocab);
  const int count = how.top_k <= 0 ? vocab : std::min(how.top_k, vocab);
  return draw(best(logits, vocab, count, how.top_p < 1.0f), how);
}

}  // namespace rksim
