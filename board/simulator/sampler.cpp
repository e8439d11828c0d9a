#include "sampler.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "kernels.hpp"

namespace rksim {
namespace {

constexpr size_t WINDOW = 64;  // the usual length of the penalty window in llama.cpp, which the vendor embeds

bool neutral(const Sampling& how) {
  return how.repeat_penalty == 1.0f && how.frequency_penalty == 0 && how.presence_penalty == 0;
}

// Mirostat 1: with odds like those of Zipf's law, the number of candidates whose surprise is `surprise` bits.
size_t likely_count(const std::vector<double>& odds, double surprise) {
  double products = 0, squares = 0;
  for (size_t i = 0; i + 1 < std::min<size_t>(odds.size(), 100) && odds[i + 1] > 0; i++) {
    const double step = std::log(double(i + 2) / double(i + 1));
    products += step * std::log(odds[i] / odds[i + 1]);
    squares += step * step;
  }
  const double slope = squares > 0 ? products / squares : 1, excess = slope - 1;
  const double count = excess * std::exp2(surprise) / (1 - std::pow(double(odds.size()), -excess));
  const double likely = std::pow(count, 1 / slope);
  return likely >= 1 && likely < double(odds.size()) ? size_t(likely) : likely >= 1 ? odds.size() : 1;
}

}  // namespace

void Sampler::forget() {
  recent_.clear();
  surprise_ = -1;
}

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
  return candidates[pick(weights)].id;
}

size_t Sampler::pick(const std::vector<double>& weights) {
  double at = 0;
  for (double weight : weights) at += weight;
  at *= uniform();
  for (size_t i = 0; i < weights.size(); i++)
    if ((at -= weights[i]) < 0) return i;
  return weights.size() - 1;
}

// Basu et al., 2021: the surprise of the tokens drawn is held at tau. Version 1 estimates how many candidates that
// leaves from the slope of the best hundred, version 2 drops those that are too surprising.
int Sampler::mirostat(const float* logits, int vocab, const Sampling& how) {
  std::vector<Candidate> candidates = best(logits, vocab, vocab, true);
  if (candidates.empty()) return 0;
  std::vector<double> odds;
  double whole = 0;
  for (const auto& c : candidates) {
    odds.push_back(std::exp(double(c.logit - candidates[0].logit) / double(how.temperature)));
    whole += odds.back();
  }
  if (surprise_ < 0) surprise_ = 2 * double(how.mirostat_tau);
  size_t kept = 1;
  if (how.mirostat == 1) kept = likely_count(odds, surprise_);
  else while (kept < odds.size() && -std::log2(odds[kept] / whole) <= surprise_) kept++;
  odds.resize(std::min(std::max<size_t>(kept, 1), odds.size()));
  whole = std::accumulate(odds.begin(), odds.end(), 0.0);
  const size_t drawn = pick(odds);
  surprise_ -= double(how.mirostat_eta) * (-std::log2(odds[drawn] / whole) - double(how.mirostat_tau));
  surprise_ = std::max(surprise_, 0.0);
  return candidates[drawn].id;
}

int Sampler::sample(float* logits, int vocab, const Sampling& how) {
  penalise(logits, how);
  const bool greedy = !(how.temperature > 0) || (how.top_k == 1 && how.mirostat == 0);
  if (greedy) return kernels().argmax(logits, vocab);
  if (how.mirostat == 1 || how.mirostat == 2) return mirostat(logits, vocab, how);
  const int count = how.top_k <= 0 ? vocab : std::min(how.top_k, vocab);
  return draw(best(logits, vocab, count, how.top_p < 1.0f), how);
}

}  // namespace rksim
