from gpuserver.domain import Message
from gpuserver.pipeline.conversation import MAX_BYTES, MAX_MESSAGES, TUTOR_PROMPT, Conversation


def test_the_question_follows_the_system_prompt_and_the_memory() -> None:
    conversation = Conversation("Be kind.", [Message("user", "Hi"), Message("assistant", "Hello.")])
    assert conversation.messages("Why?") == [
        Message("system", "Be kind."),
        Message("user", "Hi"),
        Message("assistant", "Hello."),
        Message("user", "Why?"),
    ]


def test_without_a_prompt_of_its_own_a_session_is_a_tutor() -> None:
    assert Conversation().messages()[0] == Message("system", TUTOR_PROMPT)


def test_an_empty_prompt_means_none() -> None:
    assert Conversation("").messages("Why?") == [Message("user", "Why?")]


def test_messages_of_one_role_in_a_row_are_told_as_one() -> None:
    conversation = Conversation("")
    conversation.remember("user", "What is rain?")
    conversation.remember("assistant", "  ")
    assert conversation.messages("In one word.") == [Message("user", "What is rain?\nIn one word.")]


def test_the_oldest_is_forgotten_beyond_the_number_of_messages() -> None:
    conversation = Conversation("")
    for number in range(MAX_MESSAGES + 3):
        conversation.remember("user" if number % 2 else "assistant", str(number))
    assert [message.content for message in conversation.messages()] == [str(number) for number in range(3, MAX_MESSAGES + 3)]


def test_the_oldest_is_forgotten_beyond_the_number_of_bytes() -> None:
    conversation = Conversation("")
    conversation.remember("user", "a" * (MAX_BYTES - 10))
    conversation.remember("assistant", "月" * 4)
    assert conversation.messages() == [Message("assistant", "月" * 4)]


def test_one_message_that_is_too_long_is_remembered_from_its_end() -> None:
    conversation = Conversation("")
    conversation.remember("user", "月" * MAX_BYTES + "end")
    remembered = conversation.messages()[0].content
    assert len(remembered.encode()) <= MAX_BYTES
    assert remembered.endswith("月end")
    assert "\ufffd" not in remembered
