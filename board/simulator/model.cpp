#include "model.hpp"

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "errors.hpp"
#include "log.hpp"
#include "simfile.hpp"

namespace rksim {
namespace {

// int32 sums of 65536 products of 255 * 127 still fit (see lanes.hpp).
constexpr int MOST_IN = 65536;
constexpr int MOST_ID = 1 << 22;

std::vector<int> id_list(const std::string& text, int vocab) {
  std::vector<int> ids;
  std::istringstream words(text);
  for (std::string word; std::getline(words, word, ',');) {
    char* end = nullptr;
    const long id = std::strtol(word.c_str(), &end, 10);
    if (word.empty() || *end || id < 0 || id >= vocab) RKSIM_REFUSE("failed to read key-value pairs");
    ids.push_back(int(id));
  }
  return ids;
}

int group_of(const std::string& dtype) {
  if (dtype == "w8a8" || dtype == "fp16") return 0;
  if (dtype == "w8a8_g128") return 128;
  if (dtype == "w8a8_g256") return 256;
  if (dtype == "w8a8_g512") return 512;
  RKSIM_REFUSE("failed to read key-value pairs");
}

void read_sizes(const SimFile& file, Config& c) {
  c.vocab = file.integer("vocab", 1, MOST_ID);
  c.hidden = file.integer("hidden", 1, MOST_IN);
  c.layers = file.integer("layers", 1, 1024);
  c.heads = file.integer("heads", 1, 1024);
  c.kv_heads = file.integer("kv_heads", 1, c.heads);
  c.head_dim = file.integer("head_dim", 2, 4096);
  c.ffn = file.integer("ffn", 1, MOST_IN);
  c.context = file.integer("context", 1, 1 << 20);
  c.window = file.integer("window", 0, 1 << 30);
  if (c.heads % c.kv_heads || c.head_dim % 2 || c.heads * c.head_dim > MOST_IN)
    RKSIM_REFUSE("failed to read key-value pairs");
}

void read_factors(const SimFile& file, Config& c) {
  c.rms_eps = file.real("rms_eps", 0);
  c.rope_theta = file.real("rope_theta", 1e-6f);
  c.attn_scale = file.real("attn_scale", 0);
  c.embed_scale = file.real("embed_scale", 0);
  c.attn_softcap = file.real("attn_softcap", 0);
  c.final_softcap = file.real("final_softcap", 0);
}

Config read_config(const SimFile& file) {
  Config c;
  const std::string& family = file.text("family");
  c.gemma2 = family == "gemma2";
  if (!c.gemma2 && family != "gemma") RKSIM_REFUSE("unsupported model architecture: %s", family.c_str());
  read_sizes(file, c);
  read_factors(file, c);
  c.sliding = file.text("sliding");
  if (c.sliding.size() != size_t(c.layers) || c.sliding.find_first_not_of("01") != std::string::npos)
    RKSIM_REFUSE("failed to read key-value pairs");
  c.dtype = file.text("dtype");
  c.group = group_of(c.dtype);
  c.bos = file.integer("bos", 0, c.vocab - 1);
  c.eos = id_list(file.text("eos"), c.vocab);
  c.platform = file.text("platform");
  c.toolkit = file.text("toolkit");
  c.npu_cores = file.integer("npu_cores", 1, 64);
  return c;
}

}  // namespace

Model::Model(const std::string& path, bool needs_embed) : file_(new SimFile(path)) {
  if (file_->kind() != "model") RKSIM_REFUSE("the model architecture %s is not supported by rkllm", file_->kind().c_str());
  config = read_config(*file_);
  if (needs_embed || file_->has("embed")) embed = floats("embed", config.vocab, config.hidden);
  output_norm = norm("output_norm");
  output = linear("output", config.vocab, config.hidden);
  read_layers();
  if (file_->has("pieces")) pieces_.read(*file_, "pieces", config.vocab);
  vocabulary.read(*file_, config.vocab);
}

Model::~Model() = default;

const float* Model::norm(const std::string& name) const {
  return static_cast<const float*>(file_->data(name, "f32", 1, config.hidden));
}

// f32 where the file says so: a float32 checkpoint exported as fp16 keeps what 16 bits cannot hold.
Linear Model::floats(const std::string& name, int out, int in) const {
  Linear w;
  w.out = out;
  w.in = in;
  if (file_->tensor(name).dtype == "f32") w.f32 = static_cast<const float*>(file_->data(name, "f32", out, in));
  else w.f16 = static_cast<const uint16_t*>(file_->data(name, "f16", out, in));
  return w;
}

Linear Model::linear(const std::string& name, int out, int in) const {
  if (config.dtype == "fp16") return floats(name, out, in);
  Linear w;
  w.out = out;
  w.in = in;
  if (config.group && in % config.group) RKSIM_REFUSE("failed to read tensor info");
  w.groups = config.group ? in / config.group : 1;
  w.q = static_cast<const int8_t*>(file_->data(name, "i8", out, in));
  w.scale = static_cast<const float*>(file_->data(name + ".scale", "f32", out, w.groups));
  return w;
}

void Model::read_layers() {
  const Config& c = config;
  const int q_dim = c.heads * c.head_dim, kv_dim = c.kv_heads * c.head_dim;
  layers.resize(size_t(c.layers));
  for (int i = 0; i < c.layers; i++) {
    const std::string at = "blk." + std::to_string(i) + ".";
    Layer& l = layers[size_t(i)];
    l.attn_norm = norm(at + "attn_norm");
    l.ffn_norm = norm(at + "ffn_norm");
    if (c.gemma2) {
      l.attn_post_norm = norm(at + "attn_post_norm");
      l.ffn_post_norm = norm(at + "ffn_post_norm");
    }
    l.q = linear(at + "q", q_dim, c.hidden);
    l.k = linear(at + "k", kv_dim, c.hidden);
    l.v = linear(at + "v", kv_dim, c.hidden);
    l.o = linear(at + "o", c.hidden, q_dim);
    l.gate = linear(at + "gate", c.ffn, c.hidden);
    l.up = linear(at + "up", c.ffn, c.hidden);
    l.down = linear(at + "down", c.hidden, c.ffn);
    l.sliding = c.sliding[size_t(i)] == '1' && c.window > 0;
  }
}

bool Model::has_sliding() const {
  return std::any_of(layers.begin(), layers.end(), [](const Layer& layer) { return layer.sliding; });
}

uint64_t Model::fingerprint() const { return file_->fingerprint(); }

}  // namespace rksim
