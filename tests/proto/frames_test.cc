#include "proto/wire/frames.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <limits>
#include <random>

#include "tests/proto/frame_oracle.h"

namespace kdn::wire {
namespace {

using ::testing::HasSubstr;

std::string RandomBytes(size_t n, uint32_t seed = 1) {
  std::mt19937 random(seed);
  std::string bytes(n, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  return bytes;
}

Payload PayloadOf(const std::string& bytes) {
  auto owner = std::make_shared<const std::string>(bytes);
  const std::span<const uint8_t> span(reinterpret_cast<const uint8_t*>(owner->data()), owner->size());
  return {.owner = std::move(owner), .bytes = span};
}

std::string Message(const absl::StatusOr<ParsedFrame>& frame) { return std::string(frame.status().message()); }

TEST(EncodeFetchData, IsAValidProtobufMessageForAnyGrpcClient) {
  for (const DataFrame& where : {DataFrame{}, DataFrame{.chunk = 3, .slab = 17, .offset = 1 << 20},
                                 DataFrame{.chunk = std::numeric_limits<uint32_t>::max(),
                                 .slab = std::numeric_limits<uint32_t>::max(),
                                 .offset = std::numeric_limits<uint64_t>::max()}}) {
    for (const size_t size : {size_t{0}, size_t{1}, size_t{127}, size_t{128}, size_t{1} << 20}) {
      const std::string data = RandomBytes(size);
      v1::FetchFrame frame;
      ASSERT_TRUE(frame.ParseFromString(Joined(EncodeFetchData(where, PayloadOf(data)))));
      EXPECT_EQ(frame.chunk(), where.chunk);
      EXPECT_EQ(frame.slab(), where.slab);
      EXPECT_EQ(frame.offset(), where.offset);
      EXPECT_FALSE(frame.has_result());
      EXPECT_TRUE(frame.data() == data);
    }
  }
}

TEST(EncodeFetchFrame, JoinsAResultAndTheDataOfManySlabs) {
  v1::ChunkResult result;
  result.set_tier(v1::TIER_DISK);
  result.set_manifest(RandomBytes(300));
  const std::string result_bytes = result.SerializeAsString();
  const std::vector<std::string> slabs = {RandomBytes(1000), "", RandomBytes(70'000)};
  std::vector<Payload> data;
  for (const std::string& slab : slabs) data.push_back(PayloadOf(slab));
  v1::FetchFrame frame;
  const DataFrame where = {.chunk = 3, .slab = 17, .offset = 5};
  ASSERT_TRUE(frame.ParseFromString(Joined(EncodeFetchFrame(where, result_bytes, data))));
  EXPECT_EQ(frame.chunk(), 3u);
  EXPECT_EQ(frame.slab(), 17u);
  EXPECT_EQ(frame.offset(), 5u);
  EXPECT_EQ(frame.result().SerializeAsString(), result_bytes);
  EXPECT_TRUE(frame.data() == slabs[0] + slabs[2]);

  ASSERT_TRUE(frame.ParseFromString(Joined(EncodeFetchFrame({.chunk = 3}, result_bytes, {}))));
  EXPECT_TRUE(frame.has_result());
  EXPECT_TRUE(frame.data().empty());
}

TEST(EncodeStoreData, IsAValidProtobufMessageWithoutAChunkField) {
  const std::string data = RandomBytes(1000);
  v1::StoreFrame frame;
  ASSERT_TRUE(frame.ParseFromString(Joined(EncodeStoreData({.chunk = 9, .slab = 5, .offset = 77}, PayloadOf(data)))));
  EXPECT_EQ(frame.slab(), 5u);
  EXPECT_EQ(frame.offset(), 77u);
  EXPECT_EQ(frame.data(), data);
  EXPECT_TRUE(frame.GetReflection()->GetUnknownFields(frame).empty());  // field 1 is reserved in StoreFrame
}

TEST(EncodeFetchData, SendsThePayloadWithoutCopyingItAndLetsItsOwnerGo) {
  Payload payload = PayloadOf(RandomBytes(1 << 16));
  const std::weak_ptr<const void> owner = payload.owner;
  const uint8_t* bytes = payload.bytes.data();
  {
    const grpc::ByteBuffer frame = EncodeFetchData({.chunk = 1}, std::move(payload));
    std::vector<grpc::Slice> slices;
    ASSERT_TRUE(frame.Dump(&slices).ok());
    EXPECT_EQ(slices.back().begin(), bytes);
    EXPECT_FALSE(owner.expired());
  }
  EXPECT_TRUE(owner.expired());
}

TEST(ParseFrame, ReadsWhatProtobufWritesHoweverItIsSliced) {
  v1::FetchFrame sent;
  sent.set_chunk(300);
  sent.set_slab(70000);
  sent.set_offset(uint64_t{1} << 40);
  sent.mutable_result()->set_manifest(RandomBytes(200));
  sent.mutable_result()->set_detail("why");
  sent.set_data(RandomBytes(300));
  const std::string bytes = sent.SerializeAsString();
  for (size_t slice_bytes = 1; slice_bytes <= bytes.size(); ++slice_bytes) {
    const absl::StatusOr<ParsedFrame> got = ParseFrame(CutIntoSlices(bytes, slice_bytes));
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(got->where.chunk, 300u);
    EXPECT_EQ(got->where.slab, 70000u);
    EXPECT_EQ(got->where.offset, uint64_t{1} << 40);
    EXPECT_TRUE(got->has_header);
    EXPECT_EQ(got->header, sent.result().SerializeAsString());
    EXPECT_EQ(DataOf(*got), sent.data());
  }
}

TEST(ParseFrame, DataPointsIntoTheMessageAndOutlivesIt) {
  const std::string data = RandomBytes(1 << 16);
  Payload payload = PayloadOf(data);
  const uint8_t* bytes = payload.bytes.data();
  absl::StatusOr<ParsedFrame> got = ParseFrame(EncodeStoreData({.slab = 1}, std::move(payload)));
  ASSERT_TRUE(got.ok()) << got.status();
  const ParsedFrame moved = *std::move(got);
  ASSERT_EQ(moved.data.size(), 1u);
  EXPECT_EQ(moved.data[0].data(), bytes);
  EXPECT_TRUE(DataOf(moved) == data);
}

TEST(ParseFrame, AnEmptyMessageIsAFrameOfDefaults) {
  const absl::StatusOr<ParsedFrame> got = ParseFrame(CutIntoSlices("", 1));
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_FALSE(got->has_header);
  EXPECT_EQ(got->data_bytes, 0u);
  EXPECT_EQ(ParseFrame(grpc::ByteBuffer()).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ParseFrame, EveryTruncationIsJudgedAsProtobufJudgesIt) {
  v1::FetchFrame sent;
  sent.set_chunk(300);
  sent.mutable_result()->set_manifest(RandomBytes(40));
  sent.set_offset(1 << 20);
  sent.set_data(RandomBytes(50));
  const std::string bytes = sent.SerializeAsString();
  size_t refused = 0;
  for (size_t n = 0; n < bytes.size(); ++n) {
    const std::string_view cut = std::string_view(bytes).substr(0, n);
    EXPECT_EQ(DisagreementAbout(cut, 3), "") << n;
    refused += ParseFrame(CutIntoSlices(cut, 3)).ok() ? 0 : 1;
  }
  EXPECT_GT(refused, bytes.size() - 8);  // only a cut between fields leaves a message
}

TEST(ParseFrame, EveryFlippedBitIsJudgedAsProtobufJudgesIt) {
  v1::FetchFrame sent;
  sent.set_chunk(300);
  sent.mutable_result()->set_detail("a chunk that is not there");
  sent.set_slab(2);
  sent.set_data(RandomBytes(30));
  std::string bytes = sent.SerializeAsString();
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
    EXPECT_EQ(DisagreementAbout(bytes, 7), "") << bit;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
  }
}

TEST(ParseFrame, RandomBytesAreJudgedAsProtobufJudgesThem) {
  // Tags and lengths that mean something, in a random order, reach deeper than noise would.
  const std::string interesting[] = {
      "\x08", "\x12", "\x18", "\x20", "\x7a",     "\x78",         "\x13", std::string(1, '\0'),
      "\x14", "\x0d", "\x09", "\x05", "\x80\x01", "\xff\xff\x03", "\x10", "\x01"};
  std::mt19937 random(7);
  for (int i = 0; i < 20000; ++i) {
    std::string bytes;
    const size_t parts = random() % 12;
    for (size_t p = 0; p < parts; ++p) {
      bytes += random() % 4 == 0 ? std::string(1, static_cast<char>(random()))
                                 : interesting[random() % std::size(interesting)];
    }
    ASSERT_EQ(DisagreementAbout(bytes, 1 + random() % 5), "") << testing::PrintToString(bytes);
  }
}

TEST(ParseFrame, SkipsFieldsOfTheFutureAndFieldsOfAnotherWireType) {
  std::string bytes;
  bytes += "\x32\x03xyz";                           // 6: bytes
  bytes += "\x38\x96\x01";                          // 7: varint
  bytes += std::string("\x45\0\0\0\0", 5);          // 8: fixed32
  bytes += std::string("\x49\0\0\0\0\0\0\0\0", 9);  // 9: fixed64
  bytes += "\x53\x08\x05\x54";                      // 10: a group that holds a field 1
  bytes += "\x0a\x02hi";                            // 1 as bytes, not as a varint
  bytes += "\x78\x05";                              // 15 as a varint, not as bytes
  bytes += "\x18\x04\x7a\x02ok";                    // slab 4, data "ok"
  for (const size_t slice_bytes : {size_t{1}, size_t{2}, size_t{100}}) {
    const absl::StatusOr<ParsedFrame> got = ParseFrame(CutIntoSlices(bytes, slice_bytes));
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(got->where.chunk, 0u);
    EXPECT_EQ(got->where.slab, 4u);
    EXPECT_EQ(DataOf(*got), "ok");
    EXPECT_EQ(DisagreementAbout(bytes, slice_bytes), "");
  }
}

TEST(ParseFrame, RefusesMalformedBytesByName) {
  EXPECT_THAT(Message(ParseFrame(CutIntoSlices("\x7a\x05"
                                               "abc",
                                               2))),
              HasSubstr("ends inside `data`"));
  EXPECT_THAT(Message(ParseFrame(CutIntoSlices("\x12\xff\xff\xff\xff\x7f", 2))), HasSubstr("inside its header"));
  EXPECT_THAT(Message(ParseFrame(CutIntoSlices("\x1e", 1))), HasSubstr("unknown wire type 6"));
  EXPECT_THAT(Message(ParseFrame(CutIntoSlices("\x54", 1))), HasSubstr("group 10 ends but is not open"));
  EXPECT_THAT(Message(ParseFrame(CutIntoSlices("\x53", 1))), HasSubstr("ends inside group 10"));
  EXPECT_THAT(Message(ParseFrame(CutIntoSlices(std::string(5000, '\x53'), 64))), HasSubstr("nested deeper"));
}

TEST(ParseFrame, RefusesDataAndHeadersOverTheLimits) {
  v1::FetchFrame frame;
  frame.set_data(std::string(kMaxFrameBytes, 'x'));
  EXPECT_TRUE(ParseFrame(CutIntoSlices(frame.SerializeAsString(), 1 << 14)).ok());
  frame.set_data(std::string(kMaxFrameBytes + 1, 'x'));
  const absl::StatusOr<ParsedFrame> too_long = ParseFrame(CutIntoSlices(frame.SerializeAsString(), 1 << 14));
  EXPECT_EQ(too_long.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(too_long), HasSubstr("4194304"));

  frame.Clear();
  frame.mutable_result()->set_manifest(std::string(kMaxHeaderBytes, 'x'));
  EXPECT_THAT(Message(ParseFrame(CutIntoSlices(frame.SerializeAsString(), 1 << 14))), HasSubstr("frame header of"));
  // The limit is on the sum, or a peer could name the field again and again.
  frame.mutable_result()->set_manifest(std::string(kMaxHeaderBytes * 2 / 3, 'x'));
  const std::string twice = frame.SerializeAsString() + frame.SerializeAsString();
  EXPECT_THAT(Message(ParseFrame(CutIntoSlices(twice, 1 << 14))), HasSubstr("frame header of"));
}

TEST(EncodeMessage, RoundTripsAndNamesTheTypeOfWhatItCannotRead) {
  v1::StoreResponse sent;
  sent.add_chunks()->set_message("full");
  v1::StoreResponse got;
  ASSERT_TRUE(DecodeMessage(EncodeMessage(sent), &got).ok());
  EXPECT_EQ(got.SerializeAsString(), sent.SerializeAsString());
  ASSERT_TRUE(DecodeMessage(EncodeMessage(v1::StoreResponse()), &got).ok());
  EXPECT_EQ(got.chunks_size(), 0);
  const absl::Status garbage = DecodeMessage(CutIntoSlices("\xff\xff", 1), &got);
  EXPECT_EQ(garbage.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(garbage.message()), HasSubstr("kdn.v1.StoreResponse"));
  EXPECT_FALSE(DecodeMessage(grpc::ByteBuffer(), &got).ok());
}

}  // namespace
}  // namespace kdn::wire
