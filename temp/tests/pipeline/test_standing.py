from gpuserver.pipeline.standing import StandingNotices, Told


def codes(told: Told, notices: StandingNotices) -> list[str]:
    return [notice.code for notice in told.news(notices)]


def test_what_holds_is_told_once() -> None:
    notices, told = StandingNotices(), Told()
    notices.say("engine", "engine_fallback", "No GPU.")
    assert codes(told, notices) == ["engine_fallback"]
    assert codes(told, notices) == []


def test_who_comes_later_is_told_what_still_holds() -> None:
    notices = StandingNotices()
    notices.say("engine", "engine_fallback", "No GPU.")
    notices.say("mouths", "mouths_half", "Busy.")
    notices.take_back("mouths", "mouths_full", "Free again.")
    assert codes(Told(), notices) == ["engine_fallback"]


def test_the_end_is_told_to_those_who_were_told_the_beginning() -> None:
    notices, told = StandingNotices(), Told()
    notices.say("mouths", "mouths_half", "Busy.")
    assert codes(told, notices) == ["mouths_half"]
    notices.take_back("mouths", "mouths_full", "Free again.")
    assert codes(told, notices) == ["mouths_full"]
    assert codes(told, notices) == []


def test_what_comes_back_is_told_again() -> None:
    notices, told = StandingNotices(), Told()
    heard = []
    for _ in range(2):
        notices.say("mouths", "mouths_half", "Busy.")
        heard += codes(told, notices)
        notices.take_back("mouths", "mouths_full", "Free again.")
        heard += codes(told, notices)
    assert heard == ["mouths_half", "mouths_full"] * 2


def test_whoever_listens_hears_of_every_change() -> None:
    notices = StandingNotices()
    changes: list[int] = []
    notices.listen(lambda: changes.append(len(list(notices))))
    notices.say("engine", "engine_fallback", "No GPU.")
    notices.say("mouths", "mouths_half", "Busy.")
    assert changes == [1, 2]
