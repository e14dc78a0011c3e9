"""The words: Korean stems and nouns with their English, by what they can be combined with.

Written as tables: `한국어=english`, an underscore for a space inside an entry. A Korean word has one English
translation everywhere, so that the Korean sentence determines the English one.
"""

from dataclasses import dataclass

from corpus.conjugation import Stem


@dataclass(frozen=True)
class Noun:
    """A noun: its kind says which verbs and adjectives it goes with; a mass noun has no plural and no article."""

    ko: str
    en: str
    kind: str
    counter: str
    mass: bool = False


@dataclass(frozen=True)
class Verb:
    """A verb: base form, the words that follow it ('to' in listen to), kinds of object, and whether it is a state."""

    stem: Stem
    en: str
    after: str
    objects: tuple[str, ...]
    stative: bool


@dataclass(frozen=True)
class Adjective:
    """An adjective, its comparative and the kinds of noun it describes."""

    stem: Stem
    en: str
    comparative: str
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """A place: English with its article, and the preposition for being there."""

    ko: str
    en: str
    at: str


def _pairs(table: str) -> list[tuple[str, str]]:
    cells = (entry.replace("_", " ").split("=") for entry in table.split())
    return [(ko, en) for ko, en in cells]


_NOUN_TABLE = {
    # kind: (counter, nouns, mass nouns)
    "job": (
        "명",
        "학생=student 선생님=teacher 의사=doctor 간호사=nurse 가수=singer 배우=actor 요리사=cook 기자=reporter "
        "화가=painter 작가=writer 농부=farmer 군인=soldier 변호사=lawyer 과학자=scientist 운전사=driver "
        "소방관=firefighter 경찰관=police_officer 회사원=office_worker 사업가=entrepreneur 무용수=dancer",
        "",
    ),
    "person": (
        "명",
        "남자=man 여자=woman 아이=child 소년=boy 소녀=girl 아기=baby 이웃=neighbor 손님=guest 친구=friend",
        "",
    ),
    "animal": (
        "마리",
        "개=dog 고양이=cat 새=bird 말=horse 소=cow 돼지=pig 토끼=rabbit 닭=chicken 곰=bear 호랑이=tiger 원숭이=monkey "
        "양=sheep 여우=fox 오리=duck",
        "",
    ),
    "food": (
        "개",
        "사과=apple 바나나=banana 오렌지=orange 딸기=strawberry 수박=watermelon 감자=potato 토마토=tomato 계란=egg "
        "샌드위치=sandwich",
        "밥=rice 고기=meat 생선=fish 치즈=cheese 김치=kimchi 초콜릿=chocolate",
    ),
    "baked": ("개", "케이크=cake 과자=cookie", "빵=bread"),
    "drink": ("잔", "", "물=water 우유=milk 커피=coffee 차=tea 주스=juice 맥주=beer"),
    "reading": ("권", "책=book 소설=novel 잡지=magazine 사전=dictionary 만화책=comic_book", ""),
    "message": ("통", "편지=letter", ""),
    "thing": (
        "개",
        "가방=bag 시계=watch 컵=cup 의자=chair 책상=desk 전화기=phone 우산=umbrella 열쇠=key 선물=gift 상자=box "
        "인형=doll 칼=knife 거울=mirror 접시=plate 모자=hat 반지=ring 침대=bed 램프=lamp",
        "",
    ),
    "car": ("대", "자동차=car", ""),
    "machine": ("대", "컴퓨터=computer 카메라=camera 텔레비전=television", ""),
    "bicycle": ("대", "자전거=bicycle 오토바이=motorcycle", ""),
    "instrument": ("대", "피아노=piano 기타=guitar 바이올린=violin", ""),
    "sheet": ("장", "사진=photo 지도=map 표=ticket 그림=painting", ""),
    "clothes": ("벌", "셔츠=shirt 코트=coat 치마=skirt 재킷=jacket 드레스=dress", ""),
    "plant": ("그루", "나무=tree", ""),
    "flower": ("송이", "꽃=flower 장미=rose", ""),
    "ball": ("개", "공=ball", ""),
    "door": ("개", "문=door 창문=window", ""),
    "building": ("채", "집=house 건물=building", ""),
    "song": ("곡", "노래=song", ""),
    "music": ("곡", "", "음악=music"),
    "subject": ("개", "", "한국어=Korean 영어=English 수학=math 역사=history 과학=science 독일어=German"),
}
NOUNS: dict[str, list[Noun]] = {
    kind: [Noun(ko, en, kind, counter) for ko, en in _pairs(counted)]
    + [Noun(ko, en, kind, counter, mass=True) for ko, en in _pairs(mass)]
    for kind, (counter, counted, mass) in _NOUN_TABLE.items()
}
FAMILY = [
    Noun(ko, en, "family", "명")
    for ko, en in _pairs(
        "어머니=mother 아버지=father 할머니=grandmother 할아버지=grandfather 형=brother 언니=sister "
        "딸=daughter 아들=son 삼촌=uncle 이모=aunt"
    )
]

HUMAN = ("job", "person", "family")
_OBJECTS = {
    "belongings": "thing machine car bicycle reading sheet flower clothes instrument",
    "anything": "thing machine car bicycle reading sheet flower clothes animal building plant",
    "people": "job person family",
    "food": "food baked",
    "sound": "song music",
}

# stem irregular english objects, '!' before the English of a state
_VERB_TABLE = """
읽 - read reading message            | 쓰 - write reading message        | 먹 - eat food
마시 - drink drink                   | 사 - buy belongings food drink    | 팔 - sell belongings food
보 - look_at anything people         | 만나 - meet people                | 좋아하 - !like anything people food
사랑하 - !love people animal sound   | 싫어하 - !hate people food subject | 만들 - make thing baked clothes
찾 - find belongings animal people   | 잃어버리 - lose belongings        | 열 - open door
닫 - close door                      | 씻 - wash food animal             | 듣 ㄷ listen_to sound
부르 르 sing song                    | 배우 - learn subject              | 가르치 - teach subject people
공부하 - study subject               | 돕 ㅂ help people animal          | 기다리 - wait_for people
그리 - draw animal flower people     | 고치 - fix machine bicycle door   | 빌리 - borrow belongings
입 - wear clothes                    | 타 - ride bicycle                 | 운전하 - drive car
요리하 - cook food                   | 굽 ㅂ bake baked                  | 자르 르 cut food plant
던지 - throw ball                    | 잡 - catch ball animal            | 숨기 - hide belongings ball
키우 - raise animal flower           | 기억하 - !remember people song    | 잊 - forget people song
알 - !know people song               | 믿 - !trust people                | 초대하 - invite people
짓 ㅅ build building                 | 심 - plant plant flower           | 연주하 - play instrument
"""
_INTRANSITIVE_TABLE = """
자 - sleep     | 일하 - work   | 걷 ㄷ walk    | 달리 - run   | 울 - cry      | 웃 - laugh   | 쉬 - rest
춤추 - dance   | 수영하 - swim | 놀 - play_around | 앉 - sit  | 말하 - speak  | 일어나 - get_up | 기도하 - pray
"""
_MOTION_TABLE = "가 - go | 오 - come | 돌아가 - return | 걸어가 - walk | 달려가 - run"
_GIVING_TABLE = """
주 - give belongings food ball    | 보내 - send belongings message       | 보여주 - show belongings animal
빌려주 - lend belongings          | 팔 - sell belongings food            | 가르치 - teach subject
"""


def _verbs(table: str) -> list[Verb]:
    verbs = []
    for row in table.replace("\n", "|").split("|"):
        if row.strip():
            stem, irregular, en, *objects = row.split()
            base, _, after = en.removeprefix("!").partition("_")
            kinds = tuple(kind for group in objects for kind in _OBJECTS.get(group, group).split())
            verbs.append(Verb(Stem(stem, "verb", irregular.strip("-")), base, after, kinds, en.startswith("!")))
    return verbs


TRANSITIVE = _verbs(_VERB_TABLE)
INTRANSITIVE = _verbs(_INTRANSITIVE_TABLE)
MOTION = _verbs(_MOTION_TABLE)
GIVING = _verbs(_GIVING_TABLE)

# stem irregular english comparative ('+' for more ...)
_ADJECTIVE_TABLE = {
    "thing machine car clothes building": """
        크 - big bigger | 작 - small smaller | 비싸 - expensive + | 싸 - cheap cheaper | 깨끗하 - clean cleaner |
        더럽 ㅂ dirty dirtier | 새롭 ㅂ new newer | 좋 - good better | 무겁 ㅂ heavy heavier | 가볍 ㅂ light lighter |
        빨갛 ㅎ red redder | 파랗 ㅎ blue bluer | 하얗 ㅎ white whiter | 까맣 ㅎ black blacker |
        노랗 ㅎ yellow yellower | 아름답 ㅂ beautiful +""",
    "sheet flower": "예쁘 - pretty prettier | 아름답 ㅂ beautiful + | 작 - small smaller | 비싸 - expensive +",
    "bicycle": """
        빠르 르 fast faster | 느리 - slow slower | 비싸 - expensive + | 빨갛 ㅎ red redder | 새롭 ㅂ new newer""",
    "reading": """
        재미있 - interesting + | 어렵 ㅂ difficult + | 쉽 ㅂ easy easier | 중요하 - important + | 길 - long longer |
        짧 - short shorter | 두껍 ㅂ thick thicker""",
    "message song music": "길 - long longer | 짧 - short shorter | 슬프 - sad sadder | 아름답 ㅂ beautiful +",
    "food baked": """
        맛있 - delicious + | 달 - sweet sweeter | 짜 - salty saltier | 뜨겁 ㅂ hot hotter |
        신선하 - fresh fresher | 작 - small smaller | 비싸 - expensive +""",
    "drink": "뜨겁 ㅂ hot hotter | 차갑 ㅂ cold colder | 맛있 - delicious + | 달 - sweet sweeter",
    "animal": """
        크 - big bigger | 작 - small smaller | 귀엽 ㅂ cute cuter | 빠르 르 fast faster | 느리 - slow slower |
        똑똑하 - smart smarter | 강하 - strong stronger | 까맣 ㅎ black blacker | 하얗 ㅎ white whiter""",
    "plant building": "높 - high higher | 크 - big bigger | 낮 - low lower",
    "job person family": """
        친절하 - kind kinder | 똑똑하 - smart smarter | 행복하 - happy happier | 바쁘 - busy busier |
        피곤하 - tired + | 아프 - sick sicker | 젊 - young younger | 건강하 - healthy healthier |
        강하 - strong stronger | 약하 - weak weaker | 유명하 - famous + | 용감하 - brave braver |
        게으르 르 lazy lazier | 배고프 - hungry hungrier | 조용하 - quiet quieter | 슬프 - sad sadder""",
}


def _adjectives() -> list[Adjective]:
    found: dict[str, Adjective] = {}
    for kinds, table in _ADJECTIVE_TABLE.items():
        for row in table.split("|"):
            stem, irregular, en, comparative = row.split()
            known = found[stem].kinds if stem in found else ()
            more = f"more {en}" if comparative == "+" else comparative
            found[stem] = Adjective(Stem(stem, "adjective", irregular.strip("-")), en, more, (*known, *kinds.split()))
    return list(found.values())


ADJECTIVES = _adjectives()

PLACES = [
    Place(ko, en, at)
    for at, table in {
        "at": "학교=school 시장=the_market 은행=the_bank 공항=the_airport 역=the_station 식당=the_restaurant "
        "해변=the_beach 호텔=the_hotel 우체국=the_post_office 병원=the_hospital 가게=the_store",
        "in": "도서관=the_library 공원=the_park 교회=the_church 극장=the_theater 박물관=the_museum 부엌=the_kitchen "
        "정원=the_garden 교실=the_classroom 카페=the_cafe 사무실=the_office 서울=Seoul 부산=Busan 한국=Korea "
        "일본=Japan 중국=China 독일=Germany 프랑스=France 미국=America 런던=London",
    }.items()
    for ko, en in _pairs(table)
]
LANDMARKS = _pairs("방=room 책상=desk 의자=chair 상자=box 나무=tree 집=house 침대=bed 건물=building 자동차=car 문=door")
RELATIONS = _pairs("위=on 아래=under 옆=next_to 앞=in_front_of 뒤=behind 안=in")
INSIDE = ("방", "상자", "집", "건물", "자동차")
"""Landmarks that things are in, not on or under."""

NAMES = _pairs(
    "민수=Minsu 지민=Jimin 수진=Sujin 영희=Yeonghui 철수=Cheolsu "
    "미나=Mina 준호=Junho 서연=Seoyeon 지훈=Jihun 은지=Eunji"
)
NUMBERS = _pairs("한=one 두=two 세=three 네=four 다섯=five 여섯=six 일곱=seven 여덟=eight 아홉=nine 열=ten")
VEHICLES = _pairs("버스=bus 기차=train 지하철=subway 택시=taxi 비행기=plane 배=ship")

_DAYS = "월요일에=on_Monday 화요일에=on_Tuesday 금요일에=on_Friday 토요일에=on_Saturday 일요일에=on_Sunday"
TIMES = {
    "past": _pairs("어제=yesterday 지난주에=last_week 작년에=last_year 어젯밤에=last_night " + _DAYS),
    "present": _pairs(
        "매일=every_day 아침에=in_the_morning 저녁에=in_the_evening 밤에=at_night 주말에=on_weekends 오늘=today"
    ),
    "future": _pairs("내일=tomorrow 다음_주에=next_week 내년에=next_year 곧=soon " + _DAYS),
    "now": _pairs("지금=now"),
}
FREQUENCIES = _pairs("항상=always 자주=often 가끔=sometimes 보통=usually")
