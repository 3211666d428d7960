# cmake -DASSETS=FILE|FILE -DOUTPUT=FILE.cc -P embed_assets.cmake: writes the files as arrays of kdn::PageAssets().
string(REPLACE "|" ";" assets "${ASSETS}")
set(arrays "")
set(table "")
set(number 0)
foreach(asset ${assets})
  get_filename_component(name ${asset} NAME)
  file(READ ${asset} hex HEX)
  string(REGEX REPLACE "(................................................................)" "\\1\n" hex "${hex}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," hex "${hex}")
  string(APPEND arrays "constexpr unsigned char kAsset${number}[] = {\n${hex}\n};\n")
  string(APPEND table "      {.name = \"${name}\", .content = View(kAsset${number})},\n")
  math(EXPR number "${number} + 1")
endforeach()
file(WRITE ${OUTPUT} "// Made by embed_assets.cmake.
#include \"placement/web/page_assets.h\"

namespace kdn {
namespace {

${arrays}
template <size_t n>
std::string_view View(const unsigned char (&bytes)[n]) {
  return {reinterpret_cast<const char*>(bytes), n};
}

}  // namespace

const std::vector<PageAsset>& PageAssets() {
  static const std::vector<PageAsset> assets = {
${table}  };
  return assets;
}

}  // namespace kdn
")
