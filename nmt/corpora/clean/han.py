"""The two scripts of Chinese: characters that only one of them uses.

The characters are those of the national standards, which Python's codecs know: of GB 2312 level 1, the 3,755 common
ones of Simplified text, those that Big5 lacks; of Big5 level 1, the 5,401 common ones of Traditional text, those that
GB 2312 lacks. Left out are characters in which the standards differ, but not the writers: forms of Hong Kong such as 户
and 着, and characters without a counterpart in the other script, by the tables of OpenCC 1.4.2.
"""

import functools

HAN_SCRIPTS = ("Hans", "Hant")
HAN_NAMES = {"Hans": "Simplified", "Hant": "Traditional"}

_SHARED_OF_SIMPLIFIED = "傈兑卧叁囱墒悦户温着硷税脱葱蜕酞酶"
_SHARED_OF_TRADITIONAL = (
    "伋伕佺倣偭偯偺傚僇僎僩儅儳劻勗勦吋呎啗啣嘐堉塭塽墦奭妳姅姪嬝屘屝崁巉帟彊徬惇愒慇抆揹搆搾撚撢擭敔昤晅晞暍暱暸杗枓栘梂梡梱棻楛榣槃橾櫂櫺歜毚毬汍沍沘沬泜洸浥浬涊湣湩湲潟潠澴濩濬炤"
    "焜煆煖燄燐燸牠玆玥玨珪珮琍琯瑯璘璟瓖甦甽疢痲痳痺瘉睪瞇瞋瞭砠砲硿祇祐穋箄箠篛簷籐籣籥糢縿繙耑脤脰芣蔆蘗衹裯褕褽覜觔觼詨詻誧豭賸跦跼踡踫迆迺遝郃鄗鄘釆釭鉼銲鎗鑤阬隄雊霤韹餽鯈鶸鼇"
)


def _two_bytes(encoding: str, first: int, last: int) -> frozenset[str]:
    """Return the ideographs that an encoding writes with two bytes between two numbers, both included."""
    found = set()
    for code in range(first, last + 1):
        try:
            found.add(code.to_bytes(2, "big").decode(encoding))
        except UnicodeDecodeError:
            continue
    return frozenset(character for character in found if "\u4e00" <= character <= "\u9fff")


@functools.cache
def only_in(script: str) -> frozenset[str]:
    """Return the characters that only texts of a script (`Hans` or `Hant`) use, of the common ones."""
    simplified, traditional = _two_bytes("gb2312", 0xB0A1, 0xF7FE), _two_bytes("big5", 0xA440, 0xF9FE)
    if script == "Hans":
        common = _two_bytes("gb2312", 0xB0A1, 0xD7F9)
        return common - traditional - frozenset(_SHARED_OF_SIMPLIFIED)
    common = _two_bytes("big5", 0xA440, 0xC67E)
    return common - simplified - frozenset(_SHARED_OF_TRADITIONAL)


def han_share(text: str, script: str) -> float:
    """Return the share of a script among the characters that only one of the two uses; 1 where there are none.

    Args:
      text: any text.
      script: `Hans` or `Hant`.
    """
    if text.isascii():
        return 1.0
    counts = {one: sum(map(only_in(one).__contains__, text)) for one in HAN_SCRIPTS}
    total = sum(counts.values())
    return counts[script] / total if total else 1.0
