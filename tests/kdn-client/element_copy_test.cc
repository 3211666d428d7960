// Every conversion against a reference that looks for the nearest value.
#include "kdn-client/element_copy.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "tests/kdn-client/float_reference.h"

namespace kdn {
namespace {

constexpr DType kFloats[] = {DType::kBf16, DType::kF16, DType::kF32};

using Bytes = std::vector<uint8_t>;

template <typename Word>
Bytes BytesOf(const std::vector<Word>& words) {
  Bytes bytes(words.size() * sizeof(Word));
  std::memcpy(bytes.data(), words.data(), bytes.size());
  return bytes;
}

// All words of a 16-bit type.
Bytes AllHalves() {
  std::vector<uint16_t> words;
  for (uint32_t word = 0; word < 0x10000; ++word) words.push_back(static_cast<uint16_t>(word));
  return BytesOf(words);
}

// Floats that round in every way: all values of both 16-bit types, what lies halfway between them and beside that, and
// bits at random.
Bytes ManyFloats() {
  std::vector<uint32_t> words;
  for (const DType half : {DType::kBf16, DType::kF16}) {
    for (uint32_t word = 0; word < 0x8000; ++word) {
      const double value = HalfTypeOf(half).Value(static_cast<uint16_t>(word));
      const double next = HalfTypeOf(half).Value(static_cast<uint16_t>(word + 1));
      const auto bits = std::bit_cast<uint32_t>(static_cast<float>(value));
      const auto middle = std::bit_cast<uint32_t>(static_cast<float>((value + next) / 2));
      for (const uint32_t sign : {0u, 0x80000000u}) {
        for (const uint32_t near : {bits, middle - 1, middle, middle + 1}) words.push_back(near | sign);
      }
    }
  }
  std::mt19937 random(1);
  for (int i = 0; i < 200000; ++i) words.push_back(static_cast<uint32_t>(random()));
  for (const uint32_t nan : {0x7F800001u, 0x7FBFFFFFu, 0x7FC00000u, 0x7FFFFFFFu, 0xFF800001u, 0xFFFFFFFFu}) {
    words.push_back(nan);
  }
  return BytesOf(words);
}

TEST(ElementCopyTest, OnlyFloatsAreMadeOfEachOther) {
  for (const DType from : kFloats) {
    for (const DType to : kFloats) EXPECT_TRUE(CanCopyElements(from, to));
    EXPECT_FALSE(CanCopyElements(from, DType::kI8));
    EXPECT_FALSE(CanCopyElements(DType::kF8E4M3, from));
  }
  EXPECT_TRUE(CanCopyElements(DType::kF8E5M2, DType::kF8E5M2));
  EXPECT_FALSE(CanCopyElements(DType::kF8E5M2, DType::kF8E4M3));
}

TEST(ElementCopyTest, EveryElementBecomesTheNearest) {
  for (const DType from : kFloats) {
    const Bytes source = from == DType::kF32 ? ManyFloats() : AllHalves();
    const size_t n = source.size() / DTypeSize(from);
    for (const DType to : kFloats) {
      SCOPED_TRACE(std::string(DTypeName(from)) + " to " + std::string(DTypeName(to)));
      Bytes converted(n * DTypeSize(to));
      CopyElements(from, source.data(), to, converted.data(), source.size());
      size_t wrong = 0;
      for (size_t i = 0; i < n && wrong < 5; ++i) {
        const uint8_t* const in = &source[i * DTypeSize(from)];
        const uint8_t* const out = &converted[i * DTypeSize(to)];
        const double value = ValueAt(from, in);
        Bytes expected(DTypeSize(to));
        if (from != to && std::isnan(value)) {
          const bool kept = std::isnan(ValueAt(to, out)) && std::signbit(ValueAt(to, out)) == std::signbit(value);
          wrong += kept ? 0 : 1;
          EXPECT_TRUE(kept) << "element " << i << " is no NaN any more";
          continue;
        }
        ReferenceCopy(from, in, to, expected.data());
        const bool equal = std::memcmp(out, expected.data(), expected.size()) == 0;
        wrong += equal ? 0 : 1;
        EXPECT_TRUE(equal) << "element " << i << ": " << value << " became " << ValueAt(to, out) << " instead of "
                           << ValueAt(to, expected.data());
      }
    }
  }
}

TEST(ElementCopyTest, WhatIsTooLargeForF16BecomesAnInfinity) {
  const std::vector<float> values = {65504.0F, 65519.0F, 65520.0F, 1e30F, -65520.0F, -1e30F};
  std::vector<uint16_t> halves(values.size());
  CopyElements(DType::kF32, reinterpret_cast<const uint8_t*>(values.data()), DType::kF16,
               reinterpret_cast<uint8_t*>(halves.data()), values.size() * sizeof(float));
  EXPECT_EQ(halves, (std::vector<uint16_t>{0x7BFF, 0x7BFF, 0x7C00, 0x7C00, 0xFC00, 0xFC00}));
}

TEST(ElementCopyTest, AnyNumberOfElementsAtAnyAddressAndNothingBesideThem) {
  constexpr uint8_t kPoison = 0xA5;
  std::mt19937 random(1);
  Bytes noise(600);
  for (uint8_t& byte : noise) byte = static_cast<uint8_t>(random() % 0x78);  // no NaN, whatever the type
  for (const DType from : kFloats) {
    for (const DType to : kFloats) {
      for (size_t n = 0; n <= 70; ++n) {
        for (const size_t shift : {size_t{0}, size_t{1}, size_t{3}}) {
          Bytes destination(400, kPoison);
          Bytes expected = destination;
          CopyElements(from, &noise[shift], to, &destination[shift + 32], n * DTypeSize(from));
          for (size_t i = 0; i < n; ++i) {
            ReferenceCopy(from, &noise[shift + i * DTypeSize(from)], to, &expected[shift + 32 + i * DTypeSize(to)]);
          }
          ASSERT_EQ(destination, expected)
              << DTypeName(from) << " to " << DTypeName(to) << ", " << n << " at " << shift;
        }
      }
    }
  }
}

}  // namespace
}  // namespace kdn
