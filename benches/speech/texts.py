"""The texts of the recordings, typed by hand: quotations of books that are in the public domain."""

# Charles Dickens, A Tale of Two Cities: read by a person, in the Python package moonshine-voice.
TWO_CITIES = """It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of
foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season of Light, it was the season of
Darkness, it was the spring of hope, it was the winter of despair, we had everything before us, we had nothing before us, we
were all going direct to Heaven, we were all going direct the other way, in short, the period was so far like the present
period, that some of its noisiest authorities insisted on its being received, for good or for evil, in the superlative
degree of comparison only."""

# Jane Austen, Sense and Sensibility: read by a volunteer of LibriVox, in Debian's pocketsphinx-testdata.
SENSE = {
    "0870": "And Mr. John Dashwood had then leisure to consider how much there might be prudently in his power to do for them.",
    "0880": "He was not an ill-disposed young man,",
    "0890": "unless to be rather cold hearted and rather selfish is to be ill-disposed.",
    "0920": "Had he married a more amiable woman, he might have been made still more respectable than he was.",
    "0930": "He might even have been made amiable himself.",
}

# Read by Debian's flite, by its voice.
SPOKEN = {
    # Lewis Carroll, Alice's Adventures in Wonderland.
    "slt": """Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do. Once or
twice she had peeped into the book her sister was reading, but it had no pictures or conversations in it. And what is the use
of a book, thought Alice, without pictures or conversations? So she was considering in her own mind whether the pleasure of
making a chain would be worth the trouble of getting up and picking the flowers.""",
    # Herman Melville, Moby Dick.
    "rms": """Some years ago, never mind how long precisely, having little or no money in my purse, and nothing particular to
interest me on shore, I thought I would sail about a little and see the watery part of the world. It is a way I have of driving
off the spleen and regulating the circulation. Whenever I find myself growing grim about the mouth, whenever it is a damp,
drizzly November in my soul, then I account it high time to get to sea as soon as I can.""",
    # Jane Austen, Pride and Prejudice.
    "awb": """It is a truth universally acknowledged, that a single man in possession of a good fortune must be in want of a
wife. However little known the feelings or views of such a man may be on his first entering a neighbourhood, this truth is so
well fixed in the minds of the surrounding families, that he is considered as the rightful property of some one or other of
their daughters.""",
}
