// What a run tells the application.
#pragma once
#include <functional>

namespace rksim {

enum class Mode { generate, hidden, logits };
enum class State { normal, waiting, finish, error };

struct Perf {
  float prefill_ms = 0, generate_ms = 0, memory_mb = 0;
  int prefill_tokens = 0, generate_tokens = 0;
};

// One sequence's part of a call of the application's callback. Pointers live only during the call.
struct Event {
  const char* text = nullptr;
  int id = -1;
  const float* values = nullptr;  // hidden states or logits, [tokens, width]
  int tokens = 0, width = 0;
  Perf perf = {};
};

// One event per lane; returns what the callback returned.
using Emit = std::function<int(State state, const Event* events)>;

}  // namespace rksim
