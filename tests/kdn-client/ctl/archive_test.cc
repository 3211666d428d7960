#include "kdn-client/ctl/archive.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <utility>

#include "tests/storage/test_chunks.h"

namespace kdn::ctl {
namespace {

using ::testing::HasSubstr;

std::vector<Chunk> TestChunks(uint32_t n) {
  const KvSpace space = testing::MakeSpace("test/model", 1);
  std::vector<Chunk> chunks;
  for (uint32_t seed = 1; seed <= n; ++seed) chunks.push_back(testing::MakeChunk(space, seed, 1));
  return chunks;
}

std::string ArchiveOf(const std::vector<Chunk>& chunks) {
  std::ostringstream out;
  ArchiveWriter writer(out, "test");
  for (const Chunk& chunk : chunks) EXPECT_TRUE(writer.Add(chunk).ok());
  EXPECT_TRUE(writer.Finish().ok());
  return out.str();
}

// All chunks, or why it cannot be read to its end.
absl::StatusOr<std::vector<Chunk>> ReadAll(const std::string& bytes) {
  std::istringstream in(bytes);
  absl::StatusOr<std::unique_ptr<ArchiveReader>> reader = ArchiveReader::Open(in, "test");
  if (!reader.ok()) return reader.status();
  std::vector<Chunk> chunks;
  while (true) {
    absl::StatusOr<std::optional<Chunk>> chunk = (*reader)->Next();
    if (!chunk.ok()) return chunk.status();
    if (!chunk->has_value()) return chunks;
    chunks.push_back(**std::move(chunk));
  }
}

TEST(ArchiveTest, GivesBackWhatWasWritten) {
  std::vector<Chunk> chunks = TestChunks(3);
  chunks[1].retention = {.expires = absl::FromUnixMillis(1'900'000'000'123), .lossy_allowed = true};
  const absl::StatusOr<std::vector<Chunk>> read = ReadAll(ArchiveOf(chunks));
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(*(*read)[i].manifest, *chunks[i].manifest);
    EXPECT_EQ(testing::BytesOf((*read)[i]), testing::BytesOf(chunks[i]));
    EXPECT_EQ((*read)[i].retention, chunks[i].retention);
  }
}

TEST(ArchiveTest, AnEmptyArchiveIsOne) {
  const absl::StatusOr<std::vector<Chunk>> read = ReadAll(ArchiveOf({}));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(read->empty());
}

TEST(ArchiveTest, EveryFlippedBitIsRefused) {
  const std::string good = ArchiveOf(TestChunks(2));
  for (size_t at = 0; at < good.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ (1 << bit));
      ASSERT_FALSE(ReadAll(bad).ok()) << "byte " << at << ", bit " << bit;
    }
  }
}

TEST(ArchiveTest, EveryTruncationIsRefused) {
  const std::string good = ArchiveOf(TestChunks(2));
  for (size_t size = 0; size < good.size(); ++size) {
    const absl::Status status = ReadAll(good.substr(0, size)).status();
    ASSERT_TRUE(absl::IsDataLoss(status)) << size << ": " << status;
  }
}

TEST(ArchiveTest, WhatComesAfterTheEndIsRefused) {
  EXPECT_THAT(std::string(ReadAll(ArchiveOf(TestChunks(1)) + "x").status().message()), HasSubstr("more after its end"));
}

TEST(ArchiveTest, RecordsThatAreMissingRepeatedOrSwappedAreRefused) {
  const std::string one = ArchiveOf(TestChunks(1));
  const std::string two = ArchiveOf(TestChunks(2));
  const std::string none = ArchiveOf({});
  const size_t header = 24;
  const size_t end = none.size() - header;
  const std::string first = one.substr(header, one.size() - header - end);
  const std::string second = two.substr(header + first.size(), two.size() - header - first.size() - end);
  const std::string head = two.substr(0, header);
  const std::string tail = two.substr(two.size() - end);
  ASSERT_TRUE(ReadAll(head + first + second + tail).ok());
  for (const std::string& bad : {head + first + tail, head + second + tail, head + tail, head + second + first + tail,
                                 head + first + first + second + tail, head + first + second + second + tail}) {
    EXPECT_FALSE(ReadAll(bad).ok());
  }
}

TEST(ArchiveTest, AFileIsThereOnlyOnceItIsWhole) {
  const testing::TempDir directory;
  const std::string path = directory.path() + "/chunks.kdna";
  {
    absl::StatusOr<std::unique_ptr<ArchiveWriter>> writer = ArchiveWriter::Create(path);
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE((*writer)->Add(TestChunks(1)[0]).ok());
    EXPECT_FALSE(std::filesystem::exists(path));
  }
  EXPECT_TRUE(std::filesystem::is_empty(directory.path())) << "given up, it leaves nothing";
  {
    absl::StatusOr<std::unique_ptr<ArchiveWriter>> writer = ArchiveWriter::Create(path);
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE((*writer)->Add(TestChunks(1)[0]).ok());
    ASSERT_TRUE((*writer)->Finish().ok());
  }
  absl::StatusOr<std::unique_ptr<ArchiveReader>> reader = ArchiveReader::Open(path);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_TRUE((*reader)->Next()->has_value());
  EXPECT_FALSE((*reader)->Next()->has_value());
  EXPECT_EQ((*reader)->bytes_read(), (*reader)->file_bytes());
}

TEST(ArchiveTest, SomethingElseIsNoArchive) {
  EXPECT_THAT(std::string(ReadAll(std::string(100, 'x')).status().message()), HasSubstr("it is no KDN archive"));
  EXPECT_TRUE(absl::IsNotFound(ArchiveReader::Open("/nonexistent/archive").status()));
  EXPECT_TRUE(absl::IsUnavailable(ArchiveWriter::Create("/nonexistent/archive").status()));
}

}  // namespace
}  // namespace kdn::ctl
