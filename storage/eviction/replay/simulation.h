// Simulation: what the workload generators are written in: random numbers that are the same on every machine, events in
// the order of their time, and prompts as runs of text that are cut into blocks.
//
// Thread-safety: one thread at a time.
#ifndef KDN_STORAGE_EVICTION_REPLAY_SIMULATION_H_
#define KDN_STORAGE_EVICTION_REPLAY_SIMULATION_H_

#include <cstdint>
#include <functional>
#include <queue>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "storage/base/split_mix.h"
#include "storage/eviction/replay/trace.h"

namespace kdn::replay {

// SplitMix64, and distributions of our own: those of <random> differ between standard libraries.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * kGoldenGamma) {}
  uint64_t Next();
  double Uniform();  // [0, 1)
  uint64_t Below(uint64_t n) { return Next() % n; }
  bool Chance(double probability) { return Uniform() < probability; }
  double Exponential(double mean);
  double LogNormal(double median, double sigma);

 private:
  uint64_t state_;
};

// Ranks 0..n-1 with probability proportional to (rank + 1)^-exponent.
class Zipf {
 public:
  Zipf(size_t n, double exponent);
  size_t Draw(Random& random) const;

 private:
  std::vector<double> cumulative_;
};

// A prompt: texts one after another. Equal texts in equal places give equal blocks.
class Prompt {
 public:
  void Append(uint64_t text, double tokens);
  uint32_t tokens() const { return tokens_; }

 private:
  friend class Simulation;
  struct Piece {
    uint64_t text;
    uint32_t tokens;
  };
  std::vector<Piece> pieces_;
  uint32_t tokens_ = 0;
};

class Simulation {
 public:
  explicit Simulation(uint64_t seed) : random_(seed) {}

  Random& random() { return random_; }
  double now() const { return now_; }  // seconds
  uint64_t NewText() { return ++texts_; }
  // `nominal` times a factor in [1/2, 2].
  double Vary(double nominal);

  // Runs `event` when `delay` seconds have passed.
  void After(double delay, std::function<void()> event);
  // Runs `event` at random moments, `per_second` of them on average, as long as the simulation lasts.
  void Poisson(double per_second, const std::function<void()>& event);
  void Send(const Prompt& prompt, double output_tokens);
  Trace Run(double seconds, std::string name);

 private:
  struct Event {
    double time;
    uint64_t order;
    std::function<void()> run;
    bool operator<(const Event& other) const {  // the earliest is the greatest, for the queue
      return time != other.time ? time > other.time : order > other.order;
    }
  };

  Random random_;
  double now_ = 0;
  uint64_t texts_ = 0;
  uint64_t order_ = 0;
  std::priority_queue<Event> events_;
  Trace trace_;
  absl::flat_hash_map<uint64_t, uint32_t> blocks_;  // by the hash of all that they stand for
};

}  // namespace kdn::replay

#endif  // KDN_STORAGE_EVICTION_REPLAY_SIMULATION_H_
