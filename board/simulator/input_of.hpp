// One RKLLMInput of a layout to the simulator's own, copied. Part of convert.hpp.
#pragma once
#include <string>

#include "errors.hpp"
#include "layout.hpp"
#include "log.hpp"
#include "session.hpp"

namespace rksim {

// Refuses what cannot fit before anything of that size is copied.
inline void check_count(size_t count, const Session& session) {
  const int most = session.param().max_context;
  if (count >= size_t(most))
    RKSIM_REFUSE("the length of prompt is greater than max context (prompt: %zu tokens, max context: %d)", count, most);
}

inline std::vector<float> rows_of(const float* rows, size_t count, const Session& session) {
  check_count(count, session);
  return std::vector<float>(rows, rows + count * size_t(session.config().hidden));
}

inline Input tokens_of(const RKLLMTokenInput& tokens, const Session& session) {
  if (!tokens.input_ids && tokens.n_tokens) RKSIM_REFUSE("input_ids is NULL");
  check_count(tokens.n_tokens, session);
  Input input;
  input.ids.assign(tokens.input_ids, tokens.input_ids + tokens.n_tokens);
  return input;
}

inline Input rows_of(const RKLLMEmbedInput& embed, const Session& session) {
  if (!embed.embed && embed.n_tokens) RKSIM_REFUSE("embed is NULL");
  Input input;
  input.kind = InputKind::rows;
  input.rows = rows_of(embed.embed, embed.n_tokens, session);
  return input;
}

inline Input text_of(const char* text) {
  if (!text) RKSIM_REFUSE("prompt_input is NULL");
  Input input;
  input.kind = InputKind::text;
  input.text = text;
  return input;
}

inline void add_media(Input& input, Media media, const float* rows, const Session& session) {
  check_count(media.per_item, session);
  check_count(media.items, session);
  media.rows = rows_of(rows, media.per_item * media.items, session);
  input.media.push_back(std::move(media));
}

inline const char* or_empty(const char* text) { return text ? text : ""; }

#ifdef RKSIM_HAS_RKLLMMultiModalInput_image
using MultiModal = RKLLMMultiModalInput;
#else
using MultiModal = RKLLMMultiModelInput;
#endif

inline void add_images(Input& input, const MultiModal& m, const Session& session, const Layout& layout) {
#ifdef RKSIM_HAS_RKLLMMultiModalInput_image
  const auto& image = m.image;
  const size_t count = image.n_image;
  Media media{"<image>", image.n_image_tokens, count, or_empty(image.image_start), or_empty(image.image_end), {}};
#else
  const auto& image = m;
#ifdef RKSIM_HAS_RKLLMMultiModelInput_n_image
  const size_t count = image.n_image;
#else
  const size_t count = 1;
#endif
  Media media{"<image>", image.n_image_tokens, count, session.param().image_start, session.param().image_end, {}};
#endif
  if (input.text.find(media.tag) == std::string::npos) return;
  if (media.per_item == 0 || count == 0)
    RKSIM_REFUSE("The %s of multimodal_input is not set", layout.counts_images() ? "n_image/n_image_token" : "n_image_token");
  if (!image.image_embed) RKSIM_REFUSE("The image_embed of multimodal_input is empty");
  add_media(input, std::move(media), image.image_embed, session);
}

#ifdef RKSIM_HAS_RKLLMMultiModalInput_video
inline void add_videos(Input& input, const MultiModal& m, const Session& session) {
  const auto& video = m.video;
  check_count(video.n_frame_tokens, session);
  check_count(video.n_frame_per_video, session);
  Media media{"<video>", video.n_frame_tokens * video.n_frame_per_video, video.n_video, or_empty(video.video_start),
              or_empty(video.video_end), {}};
  if (input.text.find(media.tag) == std::string::npos) return;
  if (media.per_item == 0 || media.items == 0) RKSIM_REFUSE("The n_video/n_frame_tokens of multimodal_input is not set");
  if (!video.video_embed) RKSIM_REFUSE("The video_embed of multimodal_input is empty");
  add_media(input, std::move(media), video.video_embed, session);
}
#endif

#ifdef RKSIM_HAS_RKLLMMultiModalInput_audio
inline void add_sounds(Input& input, const MultiModal& m, const Session& session) {
  const auto& audio = m.audio;
  Media media{"<audio>", audio.n_audio_tokens, audio.n_audio, or_empty(audio.audio_start), or_empty(audio.audio_end), {}};
  if (input.text.find(media.tag) == std::string::npos) return;
  if (media.per_item == 0 || media.items == 0) RKSIM_REFUSE("The n_audio/n_audio_tokens of multimodal_input is not set");
  if (!audio.audio_embed) RKSIM_REFUSE("The audio_embed of multimodal_input is empty");
  add_media(input, std::move(media), audio.audio_embed, session);
}
#endif

inline Input multimodal_of(const MultiModal& m, const Session& session, const Layout& layout) {
  Input input = text_of(m.prompt);
  input.kind = InputKind::multimodal;
  add_images(input, m, session, layout);
#ifdef RKSIM_HAS_RKLLMMultiModalInput_video
  add_videos(input, m, session);
#endif
#ifdef RKSIM_HAS_RKLLMMultiModalInput_audio
  add_sounds(input, m, session);
#endif
  if (input.media.empty())
    RKSIM_REFUSE("multimodal input must contain the <image> tag, for plain text input, please use prompt_input");
  return input;
}

inline Input untitled_input(const RKLLMInput& in, const Session& session, const Layout& layout) {
  switch (in.input_type) {
    case RKLLM_INPUT_PROMPT: return text_of(in.prompt_input);
    case RKLLM_INPUT_TOKEN: return tokens_of(in.token_input, session);
    case RKLLM_INPUT_EMBED: return rows_of(in.embed_input, session);
    case RKLLM_INPUT_MULTIMODAL: return multimodal_of(in.multimodal_input, session, layout);
  }
  RKSIM_REFUSE("unknown input type: %d", int(in.input_type));
}

inline Input input_of(const RKLLMInput& in, const Session& session, const Layout& layout) {
  Input input = untitled_input(in, session, layout);
#ifdef RKSIM_HAS_RKLLMInput_role
  if (in.role) input.role = in.role;
#endif
  return input;
}

}  // namespace rksim
