#include "storage/eviction/replay/simulation.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "storage/base/split_mix.h"

namespace kdn::replay {
namespace {

uint64_t Mix(uint64_t h, uint64_t value) {
  h = (h ^ value) * 0xbf58476d1ce4e5b9u;
  h = (h ^ (h >> 29)) * 0x94d049bb133111ebu;
  return h ^ (h >> 32);
}

}  // namespace

uint64_t Random::Next() { return SplitMix64(state_); }

double Random::Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }

double Random::Exponential(double mean) { return -mean * std::log(1 - Uniform()); }

double Random::LogNormal(double median, double sigma) {
  const double radius = std::sqrt(-2 * std::log(1 - Uniform()));
  return median * std::exp(sigma * radius * std::cos(2 * std::numbers::pi * Uniform()));
}

Zipf::Zipf(size_t n, double exponent) {
  double sum = 0;
  for (size_t rank = 0; rank < n; ++rank) {
    sum += std::pow(static_cast<double>(rank + 1), -exponent);
    cumulative_.push_back(sum);
  }
}

size_t Zipf::Draw(Random& random) const {
  const double at = random.Uniform() * cumulative_.back();
  return static_cast<size_t>(std::upper_bound(cumulative_.begin(), cumulative_.end(), at) - cumulative_.begin());
}

void Prompt::Append(uint64_t text, double tokens) {
  const auto n = static_cast<uint32_t>(std::clamp(tokens, 1.0, 1e6));
  pieces_.push_back({text, n});
  tokens_ += n;
}

double Simulation::Vary(double nominal) { return nominal * std::exp2(2 * random_.Uniform() - 1); }

void Simulation::After(double delay, std::function<void()> event) {
  events_.push({now_ + delay, ++order_, std::move(event)});
}

void Simulation::Poisson(double per_second, const std::function<void()>& event) {
  After(random_.Exponential(1 / per_second), [this, per_second, event] {
    event();
    Poisson(per_second, event);
  });
}

void Simulation::Send(const Prompt& prompt, double output_tokens) {
  Request request{.timestamp_ms = static_cast<uint64_t>(now_ * 1000),
                  .input_tokens = prompt.tokens_,
                  .output_tokens = static_cast<uint32_t>(output_tokens),
                  .first_block = static_cast<uint32_t>(trace_.blocks.size()),
                  .block_count = 0};
  uint64_t hash = 0;
  uint32_t room = kBlockTokens;
  const auto close_block = [&] {
    trace_.blocks.push_back(blocks_.try_emplace(hash, static_cast<uint32_t>(blocks_.size())).first->second);
    ++request.block_count;
    room = kBlockTokens;
  };
  for (const Prompt::Piece& piece : prompt.pieces_) {
    for (uint32_t offset = 0; offset < piece.tokens;) {
      const uint32_t n = std::min(room, piece.tokens - offset);
      hash = Mix(Mix(hash, piece.text), (uint64_t{offset} << 32) | n);
      offset += n;
      room -= n;
      if (room == 0) close_block();
    }
  }
  if (room != kBlockTokens) close_block();
  trace_.requests.push_back(request);
}

Trace Simulation::Run(double seconds, std::string name) {
  while (!events_.empty() && events_.top().time < seconds) {
    const Event event = events_.top();
    events_.pop();
    now_ = event.time;
    event.run();
  }
  trace_.name = std::move(name);
  trace_.distinct_blocks = static_cast<uint32_t>(blocks_.size());
  return std::move(trace_);
}

}  // namespace kdn::replay
