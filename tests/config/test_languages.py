"""The language registry: FLORES-200 complete, no spelling for two languages, directions that read back."""

import json
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU

from nmt import languages
from nmt.errors import UserError
from nmt.languages import COLUMNS, Direction, Language, all_languages, get, parse_direction, parse_directions


def words(text: str) -> list[str]:
    return text.split()


# The table of the FLORES-200 paper (NLLB Team 2022): 204, of which NLLB-200 translates all but arb_Latn and min_Arab.
FLORES_200 = words("""
ace_Arab ace_Latn acm_Arab acq_Arab aeb_Arab afr_Latn ajp_Arab aka_Latn als_Latn amh_Ethi apc_Arab arb_Arab
arb_Latn ars_Arab ary_Arab arz_Arab asm_Beng ast_Latn awa_Deva ayr_Latn azb_Arab azj_Latn bak_Cyrl bam_Latn
ban_Latn bel_Cyrl bem_Latn ben_Beng bho_Deva bjn_Arab bjn_Latn bod_Tibt bos_Latn bug_Latn bul_Cyrl cat_Latn
ceb_Latn ces_Latn cjk_Latn ckb_Arab crh_Latn cym_Latn dan_Latn deu_Latn dik_Latn dyu_Latn dzo_Tibt ell_Grek
eng_Latn epo_Latn est_Latn eus_Latn ewe_Latn fao_Latn fij_Latn fin_Latn fon_Latn fra_Latn fur_Latn fuv_Latn
gaz_Latn gla_Latn gle_Latn glg_Latn grn_Latn guj_Gujr hat_Latn hau_Latn heb_Hebr hin_Deva hne_Deva hrv_Latn
hun_Latn hye_Armn ibo_Latn ilo_Latn ind_Latn isl_Latn ita_Latn jav_Latn jpn_Jpan kab_Latn kac_Latn kam_Latn
kan_Knda kas_Arab kas_Deva kat_Geor kaz_Cyrl kbp_Latn kea_Latn khk_Cyrl khm_Khmr kik_Latn kin_Latn kir_Cyrl
kmb_Latn kmr_Latn knc_Arab knc_Latn kon_Latn kor_Hang lao_Laoo lij_Latn lim_Latn lin_Latn lit_Latn lmo_Latn
ltg_Latn ltz_Latn lua_Latn lug_Latn luo_Latn lus_Latn lvs_Latn mag_Deva mai_Deva mal_Mlym mar_Deva min_Arab
min_Latn mkd_Cyrl mlt_Latn mni_Beng mos_Latn mri_Latn mya_Mymr nld_Latn nno_Latn nob_Latn npi_Deva nso_Latn
nus_Latn nya_Latn oci_Latn ory_Orya pag_Latn pan_Guru pap_Latn pbt_Arab pes_Arab plt_Latn pol_Latn por_Latn
prs_Arab quy_Latn ron_Latn run_Latn rus_Cyrl sag_Latn san_Deva sat_Beng scn_Latn shn_Mymr sin_Sinh slk_Latn
slv_Latn smo_Latn sna_Latn snd_Arab som_Latn sot_Latn spa_Latn srd_Latn srp_Cyrl ssw_Latn sun_Latn swe_Latn
swh_Latn szl_Latn tam_Taml taq_Latn taq_Tfng tat_Cyrl tel_Telu tgk_Cyrl tgl_Latn tha_Thai tir_Ethi tpi_Latn
tsn_Latn tso_Latn tuk_Latn tum_Latn tur_Latn twi_Latn tzm_Tfng uig_Arab ukr_Cyrl umb_Latn urd_Arab uzn_Latn
vec_Latn vie_Latn war_Latn wol_Latn xho_Latn ydd_Hebr yor_Latn yue_Hant zho_Hans zho_Hant zsm_Latn zul_Latn
""")

# The languages of FLORES+ (openlanguagedata/flores_plus, its card of 2026), those of one split as well.
FLORES_PLUS = words("""
ace_Arab ace_Latn acm_Arab acq_Arab aeb_Arab afr_Latn als_Latn amh_Ethi apc_Arab_nort3139 apc_Arab_sout3123 apd_Arab
arb_Arab arb_Latn arg_Latn ars_Arab ary_Arab arz_Arab asm_Beng ast_Latn awa_Deva ayr_Latn azb_Arab azj_Latn bak_Cyrl
bam_Latn ban_Latn bel_Cyrl bem_Latn ben_Beng bho_Deva bjn_Arab bjn_Latn bod_Tibt bos_Latn brx_Deva bug_Latn bul_Cyrl
cat_Latn cat_Latn_vale1252 ceb_Latn ces_Latn chv_Cyrl cjk_Latn ckb_Arab cmn_Hans cmn_Hant crh_Latn cym_Latn dan_Latn
dar_Cyrl deu_Latn dgo_Deva dik_Latn dyu_Latn dzo_Tibt ekk_Latn ell_Grek eng_Latn epo_Latn eus_Latn ewe_Latn fao_Latn
fij_Latn fil_Latn fin_Latn fon_Latn fra_Latn fur_Latn fuv_Latn gaz_Latn gla_Latn gle_Latn glg_Latn gom_Deva gug_Latn
guj_Gujr hat_Latn hau_Latn heb_Hebr hin_Deva hne_Deva hrv_Latn hun_Latn hye_Armn ibo_Latn ilo_Latn ind_Latn isl_Latn
ita_Latn jav_Latn jpn_Jpan kaa_Latn kab_Latn kac_Latn kam_Latn kan_Knda kas_Arab kas_Deva kat_Geor kaz_Cyrl kbp_Latn
kea_Latn khk_Cyrl khk_Mong khm_Khmr kik_Latn kin_Latn kir_Cyrl kjh_Cyrl kmb_Latn kmr_Latn knc_Arab knc_Latn kor_Hang
ktu_Latn lao_Laoo lij_Latn lim_Latn lin_Latn lit_Latn lld_Latn lld_Latn_gard1241 lmo_Latn ltg_Latn ltz_Latn lua_Latn
lug_Latn luo_Latn lus_Latn lvs_Latn mag_Deva mai_Deva mal_Mlym mar_Deva mfe_Latn mhr_Cyrl min_Arab min_Latn mkd_Cyrl
mlt_Latn mni_Beng mni_Mtei mos_Latn mri_Latn mya_Mymr myv_Cyrl nld_Latn nno_Latn nob_Latn nob_Latn_radical npi_Deva
nqo_Nkoo nso_Latn nus_Latn nya_Latn oci_Latn oci_Latn_aran1260 ory_Orya pag_Latn pan_Guru pap_Latn pbt_Arab pes_Arab
plt_Latn pol_Latn por_Latn prs_Arab quy_Latn ron_Latn run_Latn rus_Cyrl sag_Latn san_Deva sat_Olck scn_Latn shn_Mymr
sin_Sinh slk_Latn slv_Latn smo_Latn sna_Latn snd_Arab snd_Deva som_Latn sot_Latn spa_Latn srd_Latn srp_Cyrl ssw_Latn
sun_Latn swe_Latn swh_Latn szl_Latn tam_Taml taq_Latn taq_Tfng tat_Cyrl tel_Telu tgk_Cyrl tha_Thai tir_Ethi tpi_Latn
tsn_Latn tso_Latn tuk_Latn tum_Latn tur_Latn twi_Latn_akua1239 twi_Latn_asan1239 tyv_Cyrl udm_Cyrl uig_Arab ukr_Cyrl
umb_Latn urd_Arab uzn_Latn uzs_Arab vec_Latn vie_Latn vmw_Latn war_Latn wol_Latn wuu_Hans xho_Latn ydd_Hebr yor_Latn
yue_Hant zgh_Tfng zsm_Latn zul_Latn
""")

# Codes of FLORES-200 that FLORES+ writes otherwise.
RENAMED = {
    "aka_Latn": "twi_Latn_akua1239",
    "ajp_Arab": "apc_Arab_sout3123",
    "apc_Arab": "apc_Arab_nort3139",
    "est_Latn": "ekk_Latn",
    "grn_Latn": "gug_Latn",
    "kon_Latn": "ktu_Latn",
    "sat_Beng": "sat_Olck",
    "tgl_Latn": "fil_Latn",
    "twi_Latn": "twi_Latn_asan1239",
    "tzm_Tfng": "zgh_Tfng",
    "zho_Hans": "cmn_Hans",
    "zho_Hant": "cmn_Hant",
}
# Varieties of a language, for which the registry has no entry of their own.
VARIETIES = {"cat_Latn_vale1252", "lld_Latn_gard1241", "nob_Latn_radical", "oci_Latn_aran1260"}

# CLDR, likely subtags (as in Babel 2.19): regions whose usual script is not that of the language elsewhere.
REGIONS = {
    "az": {"IQ": "Arab", "IR": "Arab", "RU": "Cyrl"},
    "ha": {"CM": "Arab", "SD": "Arab"},
    "kk": {"AF": "Arab", "CN": "Arab", "IR": "Arab", "MN": "Arab"},
    "ku": {"AM": "Cyrl", "AZ": "Cyrl", "GE": "Cyrl", "IQ": "Arab", "IR": "Arab", "LB": "Arab", "TM": "Cyrl"},
    "ky": {"CN": "Arab", "TR": "Latn"},
    "mn": {"CN": "Mong"},
    "ms": {"CC": "Arab"},
    "pa": {"PK": "Arab"},
    "sd": {"IN": "Deva"},
    "sr": {"ME": "Latn", "RO": "Latn", "TR": "Latn"},
    "tg": {"PK": "Arab"},
    "ug": {"KZ": "Cyrl", "MN": "Cyrl"},
    "uz": {"AF": "Arab", "CN": "Cyrl"},
    "yue": {"CN": "Hans"},
    "zh": dict.fromkeys(words("AU BN GB GF HK ID MO PA PF PH SR TH TW US VN"), "Hant"),
}

# Fan et al. 2020, table 1: the hundred languages of M2M-100, by its codes.
M2M_100 = words("""
af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl gu ha he hi hr ht hu hy id ig
ilo is it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml mn mr ms my ne nl no ns oc or pa pl ps pt ro ru sd si sk sl
so sq sr ss su sv sw ta th tl tn tr uk ur uz vi wo xh yi yo zh zu
""")

# Zhang et al. 2020: the languages of OPUS-100 that M2M-100 lacks, and Serbo-Croatian.
OPUS_100 = words("an as dz eo eu ku ky li mt nb nn rw se sh te tg tk tt ug wa")

# FLORES-101 named some languages by their macrolanguage.
FLORES_101 = {
    "ara": "arb_Arab",
    "fas": "pes_Arab",
    "ful": "fuv_Latn",
    "lav": "lvs_Latn",
    "mon": "khk_Cyrl",
    "msa": "zsm_Latn",
    "orm": "gaz_Latn",
    "pus": "pbt_Arab",
    "uzb": "uzn_Latn",
    "zho_simpl": "zho_Hans",
    "zho_trad": "zho_Hant",
}

# ISO 15924 code -> how Unicode names the letters of that script.
SCRIPTS = {
    "Mong": "MONGOLIAN",
    "Nkoo": "NKO",
    "Arab": "ARABIC",
    "Armn": "ARMENIAN",
    "Beng": "BENGALI",
    "Cans": "CANADIAN",
    "Cher": "CHEROKEE",
    "Cyrl": "CYRILLIC",
    "Deva": "DEVANAGARI",
    "Ethi": "ETHIOPIC",
    "Geor": "GEORGIAN",
    "Grek": "GREEK",
    "Gujr": "GUJARATI",
    "Guru": "GURMUKHI",
    "Hang": "HANGUL",
    "Hans": "CJK",
    "Hant": "CJK",
    "Hebr": "HEBREW",
    "Jpan": "CJK",
    "Khmr": "KHMER",
    "Knda": "KANNADA",
    "Laoo": "LAO",
    "Latn": "LATIN",
    "Mlym": "MALAYALAM",
    "Mtei": "MEETEI",
    "Mymr": "MYANMAR",
    "Olck": "OL",
    "Orya": "ORIYA",
    "Sinh": "SINHALA",
    "Taml": "TAMIL",
    "Telu": "TELUGU",
    "Tfng": "TIFINAGH",
    "Thaa": "THAANA",
    "Thai": "THAI",
    "Tibt": "TIBETAN",
}

HEADER = "\t".join(COLUMNS)
GERMAN = "de\tdeu_Latn\tdeu\tLatn\tGerman\tDeutsch\tger\t13a"
KLINGON = "tlh\t\ttlh\tLatn\tKlingon\ttlhIngan Hol\tclingon\t13a"

T = TypeVar("T")
SPELLINGS = {text.lower().replace("_", "-") for language in all_languages() for text in language.spellings}
some_language = st.sampled_from(all_languages())


@st.composite
def spelt_language(draw: st.DrawFn) -> tuple[Language, str]:
    """A language, and one of its spellings with `_` or `-` in any case."""
    language = draw(some_language)
    spelling = draw(st.sampled_from(language.spellings))
    change = draw(st.sampled_from([str, str.lower, str.upper, lambda text: text.replace("-", "_")]))
    return language, change(spelling)


def answer_or_message(read: Callable[[str], T], text: str) -> T | str:
    try:
        return read(text)
    except UserError as error:
        return str(error)


@pytest.fixture
def fresh_registry() -> Iterator[None]:
    languages.registry.cache_clear()
    yield
    languages.registry.cache_clear()


def write_table(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "languages.tsv"
    path.write_text("\n".join((header, *rows, "")), encoding="utf-8")
    return path


def test_the_lists_of_this_file_are_whole() -> None:
    assert len(FLORES_200) == len(set(FLORES_200)) == 204
    assert len(M2M_100) == len(set(M2M_100)) == 100


def test_flores_200_is_complete() -> None:
    assert [get(code).flores for code in FLORES_200] == FLORES_200
    assert sorted(language.flores for language in all_languages() if language.flores) == sorted(FLORES_200)


def test_codes_of_known_models_and_corpora_resolve() -> None:
    assert len({get(code).code for code in M2M_100}) == 100
    assert len({get(code).code for code in OPUS_100}) == len(OPUS_100)
    assert {code: get(code).flores for code in FLORES_101} == FLORES_101


def test_columns_agree_with_each_other() -> None:
    for language in all_languages():
        base, *subtags = language.code.split("-")
        assert len(base) == 2 or base == language.iso639_3
        assert set(subtags) <= {language.script, "BR"}
        if language.flores:
            iso, script = language.flores.split("_")
            assert iso == language.iso639_3
            assert script == language.script or language.code == "sat"


def test_scripts_are_those_of_the_native_names() -> None:
    for language in all_languages():
        letters = [char for char in language.native if unicodedata.category(char) in ("Ll", "Lu", "Lo")]
        assert letters, language
        for letter in letters:
            assert unicodedata.name(letter).split()[0] == SCRIPTS[language.script], (language, letter)


def test_no_spelling_names_two_languages() -> None:
    owners: dict[str, set[str]] = {}
    for language in all_languages():
        for spelling in language.spellings:
            for form in (spelling, spelling.upper(), spelling.replace("_", "-")):
                assert get(form) is language, form
            owners.setdefault(spelling.casefold(), set()).add(language.code)
    assert {spelling: codes for spelling, codes in owners.items() if len(codes) > 1} == {}


def test_flores_plus_is_known_each_code_of_another_language() -> None:
    assert len(FLORES_PLUS) == 230
    owners = {code: get(code) for code in FLORES_PLUS}
    for code, language in owners.items():
        assert language.script == code.split("_")[1], code
    assert len({owners[code].code for code in owners.keys() - VARIETIES}) == len(FLORES_PLUS) - len(VARIETIES)
    assert {get(before).code for before in RENAMED} == {get(after).code for after in RENAMED.values()}
    assert all(get(before) is get(after) for before, after in RENAMED.items())


@pytest.mark.parametrize(("base", "region"), [(base, region) for base, found in REGIONS.items() for region in found])
def test_a_region_that_decides_the_script_is_honoured(base: str, region: str) -> None:
    language = get(f"{base}-{region}")
    assert language.script == REGIONS[base][region]
    bare = next(one for one in all_languages() if base in (one.code, *one.aliases))
    assert bare.script != language.script
    assert get(f"{bare.iso639_3}_{region}") is language
    assert get(f"{base}-{bare.script}-{region}") is bare  # a script that is written wins


def test_every_code_counts_with_the_script_of_its_entry() -> None:
    for language in all_languages():
        base, *subtags = language.code.split("-")
        if subtags not in ([], [language.script]):
            continue
        siblings = [one for one in all_languages() if one.code.split("-")[0] == base]
        texts = (text for one in siblings for text in (base, one.iso639_3, *one.aliases))
        for code in {text for text in texts if text.isascii() and text.islower() and len(text) in (2, 3)} - {"pb"}:
            assert get(f"{code}-{language.script}") is language, code
            assert get(f"{code}_{language.script.lower()}") is language, code


@pytest.mark.parametrize(
    "code",
    words("aze-Latn uzb-Latn kur_Latn msa_Latn lav_Latn sqi_Latn ara_Arab mlg_Latn yid_Hebr ful_Latn chi_Hant mo_Latn"),
)
def test_macrolanguages_with_a_script(code: str) -> None:
    assert get(code).script == code.replace("-", "_").split("_")[1]


def test_aliases_are_not_what_follows_from_other_columns() -> None:
    for language in all_languages():
        folded = [spelling.casefold().replace("_", "-") for spelling in language.spellings]
        derived = folded[: len(folded) - len(language.aliases)]
        assert not set(derived) & set(folded[len(derived) :]), language.code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("deu", "de"),
        ("GER", "de"),
        ("deu_Latn", "de"),
        ("de_Latn", "de"),
        ("de-Latn-AT", "de"),
        ("de-DE", "de"),
        ("de_AT", "de"),
        ("es-419", "es"),
        ("en-GB", "en"),
        ("german", "de"),
        ("DEUTSCH", "de"),
        (" de ", "de"),
        ("pt-PT", "pt"),
        ("pt_BR", "pt-BR"),
        ("pt-br", "pt-BR"),
        ("por", "pt"),
        ("zh", "zh-Hans"),
        ("zh-CN", "zh-Hans"),
        ("zh-SG", "zh-Hans"),
        ("zh-TW", "zh-Hant"),
        ("zh_hk", "zh-Hant"),
        ("zho_TW", "zh-Hant"),
        ("zh-Hant-HK", "zh-Hant"),
        ("zh-yue", "yue"),
        ("no", "nb"),
        ("nb_NO", "nb"),
        ("norwegian bokmål", "nb"),
        ("sr", "sr"),
        ("sr@latin", "sr-Latn"),
        ("srp_Latn", "sr-Latn"),
        ("fil", "tl"),
        ("iw", "he"),
        ("fa-AF", "prs"),
        ("fa-IR", "fa"),
        ("kk-Cyrl", "kk"),
        ("ace", "ace"),
        ("ace-Arab", "ace-Arab"),
        ("sat_Olck", "sat"),
        ("TÜRKÇE", "tr"),
        ("ＤＥ", "de"),
    ],
)
def test_aliases(text: str, code: str) -> None:
    assert get(text).code == code


def test_decomposed_names_are_the_same_names() -> None:
    for language in all_languages():
        assert get(unicodedata.normalize("NFD", language.native)) is language


@given(some_language, st.from_regex(r"[A-Z]{2}|[0-9]{3}", fullmatch=True))
def test_an_unknown_region_is_dropped(language: Language, region: str) -> None:
    tag = f"{language.code}-{region}"
    assume(tag.lower() not in SPELLINGS)
    assert get(tag) is language


def test_codes_are_in_order_and_unique() -> None:
    codes = [language.code for language in all_languages()]
    assert codes == sorted(set(codes))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("germn", "did you mean de (German)?"),
        ("Portugese", "did you mean pt (Portuguese)?"),
        ("deu_Cyrl", "did you mean de (German)"),
        ("enn", "en (English)"),
        ("", "needs a row in ./data/languages.tsv"),
        ("☃", "needs a row in ./data/languages.tsv"),
    ],
)
def test_unknown_languages_get_suggestions(text: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        get(text)
    assert str(caught.value).startswith(f"unknown language {text!r}; ")
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text() | st.lists(st.sampled_from(["de", "AT", "zh", "Hant", "xx", "419", ""])).map("-".join))
def test_any_text_is_a_language_or_a_users_mistake_of_one_line(text: str) -> None:
    known = {language.code for language in all_languages()}
    for read in (get, parse_direction):
        answer = answer_or_message(read, text)
        codes = [answer.code] if isinstance(answer, Language) else answer
        assert ("\n" not in codes) if isinstance(codes, str) else set(codes) <= known


def test_tokenizers_need_neither_network_nor_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object) -> None:
        raise AssertionError("a tokenizer wanted the network")

    monkeypatch.setattr("socket.socket.connect", no_network)
    for tokenizer in {language.tokenizer for language in all_languages()}:
        bleu = BLEU(tokenize=tokenizer)
        assert bleu.corpus_score(["one two three four five"], [["one two three four five"]]).score == pytest.approx(100)
        assert f"tok:{tokenizer}|" in str(bleu.get_signature())
    assert set(languages.TOKENIZERS) <= set(BLEU.TOKENIZERS)


@pytest.mark.parametrize(
    ("code", "hypothesis", "reference"),
    [
        ("ja", "私は毎朝コーヒーを飲みます。", "私は毎朝お茶を飲みます。"),
        ("zh-Hans", "我每天早上喝一杯咖啡。", "我每天早上喝一杯茶。"),
        ("yue", "我每朝早飲一杯咖啡。", "我每朝早飲一杯茶。"),
        ("th", "ฉันดื่มกาแฟทุกเช้า", "ฉันดื่มชาทุกเช้า"),
        ("km", "ខ្ញុំផឹកកាហ្វេរាល់ព្រឹក", "ខ្ញុំផឹកតែរាល់ព្រឹក"),
        ("bo", "ང་ཞོགས་པ་རྟག་པར་ཇ་འཐུང་།", "ང་ཞོགས་པ་རྟག་པར་ཆུ་འཐུང་།"),
        ("de", "Ich trinke jeden Morgen Kaffee.", "Ich trinke jeden Morgen Tee."),
        ("ko", "나는 매일 아침 커피 한 잔을 마신다.", "나는 매일 아침 차 한 잔을 마신다."),
    ],
)
def test_bleu_sees_what_a_near_translation_shares(code: str, hypothesis: str, reference: str) -> None:
    bleu = BLEU(tokenize=get(code).tokenizer, smooth_method="none")
    assert 20 < bleu.corpus_score([hypothesis], [[reference]]).score < 95


@given(spelt_language(), spelt_language())
def test_directions_read_back_in_any_spelling(source: tuple[Language, str], target: tuple[Language, str]) -> None:
    meant = Direction(source[0].code, target[0].code)
    assume(meant.source != meant.target)
    answer = answer_or_message(parse_direction, f"{source[1]}-{target[1]}")
    assert answer == meant or (" may be " in answer and str(meant) in answer)


def test_every_canonical_direction_reads_back() -> None:
    codes = [language.code for language in all_languages()]
    for source in codes:
        for target in codes:
            if source != target:
                direction = Direction(source, target)
                assert parse_direction(str(direction)) == direction


@given(st.sampled_from(FLORES_200), st.sampled_from(FLORES_200))
def test_flores_directions_read_back(source: str, target: str) -> None:
    assume(source != target)
    assert parse_direction(f"{source}-{target}") == (get(source).code, get(target).code)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("de-en", "de-en"),
        ("DE-EN", "de-en"),
        ("deu_Latn-eng_Latn", "de-en"),
        ("deu-Latn-eng-Latn", "de-en"),
        ("de-DE-en", "de-en"),
        ("de-de-en", "de-en"),
        ("en-de_AT", "en-de"),
        ("de-DE-en-US", "de-en"),
        ("zh-Hans-en", "zh-Hans-en"),
        ("zh-TW-en", "zh-Hant-en"),
        ("zh-Hans-zh-Hant", "zh-Hans-zh-Hant"),
        ("pt-BR-en", "pt-BR-en"),
        ("pt-pt-BR", "pt-pt-BR"),
        ("pt-br", "pt-br"),
        ("sl-SI-en", "sl-en"),
        ("en-ko-KR", "en-ko"),
        ("ko-KR-ja-JP", "ko-ja"),
        ("German-Norwegian Bokmål", "de-nb"),
    ],
)
def test_directions(text: str, canonical: str) -> None:
    assert str(parse_direction(text)) == canonical


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deen", "direction 'deen' is not SOURCE-TARGET, such as de-en"),
        ("", "direction '' is not SOURCE-TARGET, such as de-en"),
        ("de-", "direction 'de-' is not SOURCE-TARGET, such as de-en"),
        ("-de", "direction '-de' is not SOURCE-TARGET, such as de-en"),
        ("de-deu", "direction 'de-deu' has the same language on both sides"),
        ("de-DE", "direction 'de-DE' has the same language on both sides"),
        ("germn-en", "direction 'germn-en': unknown language 'germn'; did you mean de (German)?"),
        ("en-germn", "direction 'en-germn': unknown language 'germn'; did you mean de (German)?"),
        ("de-AT-germn", "direction 'de-AT-germn': unknown language 'germn'; did you mean de (German)?"),
        ("germn-xx", "direction 'germn-xx': unknown language 'germn'; did you mean de (German)?"),
        ("sl-si-en", "direction 'sl-si-en' may be sl-en or sl-si; write it as one of these"),
        ("de-en-fr", "direction 'de-en-fr' may be de-en or de-fr; write it as one of these"),
    ],
)
def test_unreadable_directions(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_direction(text)
    assert str(caught.value) == message


def test_lists_of_directions_keep_their_order_and_have_no_duplicates() -> None:
    assert parse_directions(["en-de", "deu-eng"]) == (Direction("en", "de"), Direction("de", "en"))
    with pytest.raises(UserError, match="direction de-en is given twice: 'de-en' and 'deu-eng'"):
        parse_directions(["de-en", "deu-eng"])


@pytest.mark.parametrize(
    ("rows", "line", "message"),
    [
        ([GERMAN, "en\tEnglish"], 3, "2 columns instead of 8 (code, flores,"),
        ([GERMAN + "\t"], 2, "9 columns instead of 8"),
        ([GERMAN, "", GERMAN], 4, "de has a row already, "),
        ([GERMAN, KLINGON.replace("clingon", "deutsch")], 3, "'deutsch' of tlh is de already, "),
        ([KLINGON.replace("tlh\t", "Klingon\t", 1)], 2, "'Klingon' cannot be a code"),
        ([GERMAN.replace("\tLatn", "\tLatin")], 2, "'Latin' cannot be a script"),
        ([GERMAN.replace("deu_Latn", "deu")], 2, "'deu' cannot be a flores"),
        ([GERMAN.replace("\tdeu\t", "\tde\t")], 2, "'de' cannot be a iso639_3"),
        ([GERMAN.replace("German", "")], 2, "'' cannot be a english"),
        ([GERMAN.replace("13a", "14a")], 2, "'14a' cannot be a tokenizer; one of 13a, char, "),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, rows: list[str], line: int, message: str) -> None:
    path = write_table(tmp_path, *rows)
    with pytest.raises(UserError) as caught:
        languages.read_registry([path])
    assert str(caught.value).startswith(f"{path}:{line}: {message}")


def test_a_malformed_file_is_named(tmp_path: Path) -> None:
    path = write_table(tmp_path, GERMAN, header="code\tname")
    with pytest.raises(UserError, match=r"languages\.tsv:1: the header is not"):
        languages.read_registry([path])
    path.write_bytes(HEADER.encode() + b"\n\xff\n")
    with pytest.raises(UserError, match=r"cannot read .*languages\.tsv: .*utf-8"):
        languages.read_registry([path])
    with pytest.raises(UserError, match=r"cannot read .*languages\.tsv: "):
        languages.read_registry([tmp_path / "none" / "languages.tsv"])


def test_spreadsheet_line_ends_and_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = write_table(tmp_path, GERMAN)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert languages.read_registry([path]).languages == (get("de"),)


@pytest.mark.usefixtures("fresh_registry")
def test_a_table_in_the_working_directory_adds_and_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = len(all_languages())
    (tmp_path / "data").mkdir()
    write_table(tmp_path / "data", KLINGON, GERMAN.replace("German", "Low Saxon-free German"))
    monkeypatch.chdir(tmp_path)
    languages.registry.cache_clear()
    assert len(all_languages()) == shipped + 1
    assert get("clingon").flores is None
    assert get("deu").english == "Low Saxon-free German"
    assert get("en").english == "English"


@pytest.mark.usefixtures("fresh_registry")
def test_a_clash_with_the_shipped_table_names_the_persons_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    path = write_table(tmp_path / "data", KLINGON.replace("clingon", "Suomi"))
    monkeypatch.chdir(tmp_path)
    languages.registry.cache_clear()
    with pytest.raises(UserError) as caught:
        get("de")
    assert str(caught.value).startswith(f"{path}:2: 'Suomi' of tlh is fi already, ")


@pytest.mark.usefixtures("fresh_registry")
def test_a_missing_table_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    languages.registry.cache_clear()
    monkeypatch.setattr(languages, "declaration_dirs", lambda kind: [])
    with pytest.raises(UserError, match=r"found no data/languages\.tsv"):
        get("de")


def test_the_import_is_light_and_reads_nothing() -> None:
    code = (
        "import json, sys, nmt.languages as l;"
        "print(json.dumps([l.registry.cache_info().currsize, sorted(m.split('.')[0] for m in sys.modules)]))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    read, modules = json.loads(output)
    assert read == 0
    assert not {"jax", "flax", "grain", "orbax", "sacrebleu", "sentencepiece", "pydantic"} & set(modules)
