// RKLLM_LOG_LEVEL=2: the parameters of init, one line each.
#include "log.hpp"
#include "npu.hpp"

namespace rksim {
namespace {

const char* yes(bool value) { return value ? "true" : "false"; }

void echo_sampling(const Sampling& s) {
  info("Top-P: %f", double(s.top_p));
  info("Temperature: %f", double(s.temperature));
  info("Repeat Penalty: %f", double(s.repeat_penalty));
  info("Frequency Penalty: %f", double(s.frequency_penalty));
  info("Presence Penalty: %f", double(s.presence_penalty));
  info("Mirostat: %d", s.mirostat);
  info("Mirostat Tau: %f", double(s.mirostat_tau));
  info("Mirostat Eta: %f", double(s.mirostat_eta));
}

}  // namespace

void echo(const InitParam& p, const Layout& layout) {
  if (log_level() < 2) return;
  info("Base Domain ID: %d", p.base_domain);
  if (layout.prints_model()) info("Embed Flash: %d", p.embed_flash);
  info("Model Path: %s", p.path.c_str());
  info("Max Context Length: %d", p.max_context);
  info("Max New Tokens: %d", p.max_new_tokens);
  info("Top-K: %d", p.sampling.top_k);
  if (layout.prints_model()) info("N Keep: %d", p.n_keep);
  echo_sampling(p.sampling);
  info("Skip Special Token: %s", yes(p.skip_special));
  info("Is Async: %s", yes(p.is_async));
  if (layout.many_eos()) return;  // from 1.3.0 the image texts come with each input
  info("Image Start: %s", p.image_start.c_str());
  info("Image End: %s", p.image_end.c_str());
  info("Image Content: %s", p.image_content.c_str());
}

}  // namespace rksim
