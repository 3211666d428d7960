#include "storage/base/trace_context.h"

#include <pthread.h>

#include <chrono>
#include <cstring>
#include <exception>
#include <random>

#include "storage/base/split_mix.h"
#include "storage/base/status.h"

namespace kdn {
namespace {

// Both digits of each byte, and the value of each digit, or what no digit has.
constexpr uint8_t kNoHexDigit = 16;
constexpr std::array<char, 512> kHexPairs = [] {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::array<char, 512> pairs{};
  for (size_t byte = 0; byte < 256; ++byte) {
    pairs[2 * byte] = kDigits[byte >> 4];
    pairs[2 * byte + 1] = kDigits[byte & 15];
  }
  return pairs;
}();
constexpr std::array<uint8_t, 256> kHexValues = [] {
  std::array<uint8_t, 256> values{};
  values.fill(kNoHexDigit);
  for (uint8_t digit = 0; digit < 10; ++digit) values[static_cast<size_t>('0' + digit)] = digit;
  for (uint8_t digit = 10; digit < 16; ++digit) values[static_cast<size_t>('a' + digit - 10)] = digit;
  return values;
}();

constexpr size_t kTraceIdAt = 3;
constexpr size_t kSpanIdAt = 36;
constexpr size_t kFlagsAt = 53;
constexpr size_t kTraceparentBytes = 55;
constexpr uint8_t kSampledFlag = 1;

// Two independent states, so that a trace id has 128 random bits, not 64.
struct IdSource {
  uint64_t high = 0;
  uint64_t low = 0;
  bool seeded = false;
};
constinit thread_local IdSource t_ids;
constinit thread_local TraceContext t_current;

uint64_t RandomSeed() {
  try {  // a system without a source of randomness makes it throw
    std::random_device device;
    return uint64_t{device()} << 32 | device();
  } catch (const std::exception&) {
    const auto now = static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
    return Mix64(now ^ Mix64(reinterpret_cast<uintptr_t>(&t_ids)));
  }
}

IdSource& Ids() {
  if (!t_ids.seeded) {
    // A forked child has the memory of its parent, which must not give both the same ids. The thread that forked is the
    // child's only one.
    static const int registered = pthread_atfork(nullptr, nullptr, [] { t_ids.seeded = false; });
    static_cast<void>(registered);
    t_ids = {.high = RandomSeed(), .low = RandomSeed(), .seeded = true};
  }
  return t_ids;
}

uint64_t NonZero(uint64_t& state) {
  uint64_t number = SplitMix64(state);
  while (number == 0) number = SplitMix64(state);
  return number;
}

SpanId NewSpan(IdSource& ids) {
  SpanId span;
  const uint64_t number = NonZero(ids.low);
  std::memcpy(span.data(), &number, sizeof number);
  return span;
}

void PutHex(const uint8_t* bytes, size_t size, char* to) {
  for (size_t i = 0; i < size; ++i) std::memcpy(to + 2 * i, &kHexPairs[size_t{2} * bytes[i]], 2);
}

bool TakeHex(const char* text, size_t bytes, uint8_t* to) {
  uint32_t bad = 0;
  for (size_t i = 0; i < bytes; ++i) {
    const uint32_t high = kHexValues[static_cast<uint8_t>(text[2 * i])];
    const uint32_t low = kHexValues[static_cast<uint8_t>(text[2 * i + 1])];
    bad |= high | low;
    to[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return bad < kNoHexDigit;
}

}  // namespace

std::string TraceContext::Hex(const uint8_t* bytes, size_t size) {
  std::string text(2 * size, '\0');
  PutHex(bytes, size, text.data());
  return text;
}

TraceContext TraceContext::Child() const {
  TraceContext child = *this;
  if (valid()) child.span_id = NewSpan(Ids());
  return child;
}

TraceContext NewTrace(bool sampled) {
  IdSource& ids = Ids();
  TraceContext trace;
  const uint64_t high = NonZero(ids.high);
  const uint64_t low = SplitMix64(ids.low);
  std::memcpy(trace.trace_id.data(), &high, sizeof high);
  std::memcpy(trace.trace_id.data() + sizeof high, &low, sizeof low);
  trace.span_id = NewSpan(ids);
  trace.sampled = sampled;
  return trace;
}

std::string FormatTraceparent(const TraceContext& trace) {
  if (!trace.valid()) return {};
  std::array<char, kTraceparentBytes> text;
  const auto put = [&](size_t at, std::string_view what) { std::memcpy(text.data() + at, what.data(), what.size()); };
  put(0, "00-");
  PutHex(trace.trace_id.data(), trace.trace_id.size(), text.data() + kTraceIdAt);
  put(kSpanIdAt - 1, "-");
  PutHex(trace.span_id.data(), trace.span_id.size(), text.data() + kSpanIdAt);
  put(kFlagsAt - 1, trace.sampled ? "-01" : "-00");
  return {text.data(), text.size()};
}

absl::StatusOr<TraceContext> ParseTraceparent(std::string_view text) {
  // The text itself is not shown: it may come from a peer, and be long.
  if (text.size() < kTraceparentBytes) {
    return InvalidArgument("traceparent: {} characters; write 00-<32 hex digits>-<16 hex digits>-<2 hex digits>",
                           text.size());
  }
  uint8_t version = 0;
  uint8_t flags = 0;
  TraceContext trace;
  const bool dashes = text[kTraceIdAt - 1] == '-' && text[kSpanIdAt - 1] == '-' && text[kFlagsAt - 1] == '-';
  if (!dashes || !TakeHex(text.data(), 1, &version) ||
      !TakeHex(text.data() + kTraceIdAt, trace.trace_id.size(), trace.trace_id.data()) ||
      !TakeHex(text.data() + kSpanIdAt, trace.span_id.size(), trace.span_id.data()) ||
      !TakeHex(text.data() + kFlagsAt, 1, &flags)) {
    return InvalidArgument(
        "traceparent: not of the form 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, digits in lower case");
  }
  if (version == 0xff) return InvalidArgument("traceparent: version ff is none; use 00");
  const bool longer = text.size() > kTraceparentBytes;
  if (longer && (version == 0 || text[kTraceparentBytes] != '-')) {
    return InvalidArgument("traceparent: {} characters; version {:02x} has {} before its end or a '-'", text.size(),
                           version, kTraceparentBytes);
  }
  if (!trace.valid()) return InvalidArgument("traceparent: an id of zeros; make a random one");
  trace.sampled = (flags & kSampledFlag) != 0;
  return trace;
}

const TraceContext& CurrentTrace() { return t_current; }

TraceContext CurrentOrNewTrace() { return t_current.valid() ? t_current : NewTrace(); }

TraceContext ChildOfCurrentOrNewTrace() { return t_current.valid() ? t_current.Child() : NewTrace(); }

ScopedTrace::ScopedTrace(const TraceContext& trace) : before_(t_current) { t_current = trace; }

ScopedTrace::~ScopedTrace() { t_current = before_; }

}  // namespace kdn
