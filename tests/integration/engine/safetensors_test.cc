#include "integration/engine/safetensors.h"

#include <cmath>
#include <cstring>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "integration/process/child_process.h"
#include "storage/base/status.h"
#include "tests/integration/engine/fixtures.h"

namespace kdn::engine {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string WithHeader(const std::string& header, const std::string& data) {
  const uint64_t size = header.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + header + data;
}

class SafetensorsTest : public testing::Test {
 protected:
  absl::StatusOr<SafetensorsFile> Open(const std::string& bytes) {
    return SafetensorsFile::Open(WriteFile(directory_.path(), "model.safetensors", bytes));
  }
  // Expects that a file with `header` and 16 bytes of data is refused for the reason `why`.
  void ExpectRefused(const std::string& header, const std::string& why) {
    const absl::StatusOr<SafetensorsFile> file = Open(WithHeader(header, std::string(16, '\0')));
    ASSERT_FALSE(file.ok()) << header;
    EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(MessageOf(file.status()), HasSubstr(why));
  }

  TemporaryDirectory directory_{"kdn-safetensors-"};
};

TEST_F(SafetensorsTest, ReadsEveryFloatDTypeAsWritten) {
  const auto f32 = std::to_array({1.5f, -0.25f});
  const auto bf16 = std::to_array<uint16_t>({0x3FC0, 0xC040});         // 1.5, -3
  const auto f16 = std::to_array<uint16_t>({0x3E00, 0x0001, 0xFBFF});  // 1.5, 2^-24, -65504
  std::string data(reinterpret_cast<const char*>(f32.data()), 8);
  data.append(reinterpret_cast<const char*>(bf16.data()), 4);
  data.append(reinterpret_cast<const char*>(f16.data()), 6);
  const absl::StatusOr<SafetensorsFile> file = Open(WithHeader(
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
      R"("b":{"dtype":"BF16","shape":[1,2],"data_offsets":[8,12]},"c":{"dtype":"F16","shape":[3],"data_offsets":[12,18]}} )",
      data));
  ASSERT_TRUE(file.ok()) << file.status();
  std::vector<float> two(2);
  std::vector<float> three(3);
  ASSERT_TRUE(file->ReadFloats("a", std::vector<uint64_t>{2}, two).ok());
  EXPECT_THAT(two, ElementsAre(1.5f, -0.25f));
  ASSERT_TRUE(file->ReadFloats("b", std::vector<uint64_t>{1, 2}, two).ok());
  EXPECT_THAT(two, ElementsAre(1.5f, -3.0f));
  ASSERT_TRUE(file->ReadFloats("c", std::vector<uint64_t>{3}, three).ok());
  EXPECT_THAT(three, ElementsAre(1.5f, std::ldexp(1.0f, -24), -65504.0f));
  EXPECT_THAT(MessageOf(file->ReadFloats("a", std::vector<uint64_t>{1, 2}, two)), HasSubstr("shape [2]"));
  EXPECT_EQ(file->ReadFloats("d", std::vector<uint64_t>{2}, two).code(), absl::StatusCode::kNotFound);
}

TEST_F(SafetensorsTest, RefusesEveryTruncation) {
  const std::string whole = *ReadTextFile(FixturePath("sharded_bf16/model-00001-of-00002.safetensors"), 1 << 20);
  ASSERT_TRUE(Open(whole).ok());
  for (size_t size = 0; size < whole.size(); size += size < 64 ? 1 : 61) {
    EXPECT_FALSE(Open(whole.substr(0, size)).ok()) << "cut to " << size << " bytes";
  }
  EXPECT_FALSE(Open(whole.substr(0, whole.size() - 1)).ok());
}

TEST_F(SafetensorsTest, RefusesAHeaderLargerThanTheFileOrTheLimit) {
  for (const uint64_t size : {uint64_t{1} << 20, uint64_t{1} << 40, UINT64_MAX, UINT64_MAX - 7}) {
    std::string bytes(reinterpret_cast<const char*>(&size), sizeof size);
    const absl::StatusOr<SafetensorsFile> file = Open(bytes + "{}");
    ASSERT_FALSE(file.ok()) << size;
    EXPECT_THAT(MessageOf(file.status()), HasSubstr("header is said to have"));
  }
}

TEST_F(SafetensorsTest, RefusesTensorsThatAreNotWhatTheySay) {
  const auto one = [](const std::string& body) { return "{\"w\":{" + body + "}}"; };
  ExpectRefused("{", "not a JSON object");
  ExpectRefused("[]", "not a JSON object");
  ExpectRefused("{\"w\":3}", "not described by an object");
  ExpectRefused(one(R"("dtype":"F31","shape":[4],"data_offsets":[0,16])"), "dtype 'F31' is unknown");
  ExpectRefused(one(R"("shape":[4],"data_offsets":[0,16])"), "dtype is missing");
  ExpectRefused(one(R"("dtype":"F32","data_offsets":[0,16])"), "shape is missing");
  ExpectRefused(one(R"("dtype":"F32","shape":[4])"), "data_offsets");
  ExpectRefused(one(R"("dtype":"F32","shape":[-4],"data_offsets":[0,16])"), "whole numbers");
  ExpectRefused(one(R"("dtype":"F32","shape":[4],"data_offsets":[0,16,32])"), "data_offsets");
  ExpectRefused(one(R"("dtype":"F32","shape":[4],"data_offsets":[-8,8])"), "whole numbers");
  ExpectRefused(one(R"("dtype":"F32","shape":[4],"data_offsets":[16,0])"), "outside");
  ExpectRefused(one(R"("dtype":"F32","shape":[4],"data_offsets":[8,24])"), "outside");
  ExpectRefused(one(R"("dtype":"F32","shape":[4],"data_offsets":[18446744073709551600,18446744073709551615])"),
                "outside");
  ExpectRefused(one(R"("dtype":"F32","shape":[3],"data_offsets":[0,16])"), "needs 12 bytes");
  ExpectRefused(one(R"("dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,16])"), "larger than 2^64");
  ExpectRefused(one(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,4],"data_offsets":[0,16])"), "dimensions");
}

TEST_F(SafetensorsTest, RefusesANameThatStandsForTwoTensors) {
  ExpectRefused(
      R"({"w":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"w":{"dtype":"U8","shape":[8],"data_offsets":[8,16]}})",
      "names 'w' twice");
}

TEST_F(SafetensorsTest, RefusesTensorsThatOverlap) {
  ExpectRefused(
      R"({"v":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"w":{"dtype":"U8","shape":[8],"data_offsets":[7,15]}})",
      "overlap");
}

TEST_F(SafetensorsTest, ReadsNoDTypeThatIsNotAFloat) {
  const absl::StatusOr<SafetensorsFile> file =
      Open(WithHeader(R"({"w":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}})", "abcd"));
  ASSERT_TRUE(file.ok()) << file.status();
  std::vector<float> out(1);
  EXPECT_THAT(MessageOf(file->ReadFloats("w", std::vector<uint64_t>{1}, out)), HasSubstr("is I32"));
}

TEST_F(SafetensorsTest, SaysWhichFileIsMissing) {
  EXPECT_EQ(SafetensorsFile::Open("/nowhere/x.safetensors").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(MessageOf(SafetensorsFile::Open("/nowhere/x.safetensors").status()), HasSubstr("/nowhere/x.safetensors"));
  EXPECT_FALSE(SafetensorsFile::Open(directory_.path().string()).ok()) << "a directory is no file";
}

}  // namespace
}  // namespace kdn::engine
