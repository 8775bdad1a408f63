"""The wordings of the edits: phrases and sentence patterns for training, and held-out ones for evaluation only.

`training_prompt` makes a random prompt for an edit. HELD_OUT holds three whole prompts per edit that training never
makes (`check` looks for that): their sentence patterns are new, the words that name the edit are mostly trained ones.
"""
import pathlib
import tomllib

# --- training ----------------------------------------------------------------------------------------------------

PHRASES = {
    "black-and-white": [
        "black and white", "monochrome", "grayscale", "greyscale", "without colour", "without any color",
        "colourless",
        "a black and white photo", "a monochrome picture", "shades of grey", "shades of gray", "desaturated", "bw",
        "old black and white film", "grey", "gray tones", "noir", "film noir", "only black and white",
        "white and black", "black, white and grey",
        "no colours at all",
    ],
    "sepia": [
        "sepia", "sepia toned", "an old brown photograph", "sepia tones", "a sepia photo", "brown and cream",
        "old brown paper", "brownish", "brown tones", "a photograph from 1900", "western sepia",
        "an antique brown print",
        "antique", "in brown",
    ],
    "inverted": [
        "inverted", "inverted colors", "inverted colours", "a photo negative", "a negative", "a film negative",
        "invert",
        "the negative of itself", "reversed colors", "opposite colours", "invert the colors", "a colour negative",
        "colour inversion", "reversed", "swapped light and dark", "an x-ray negative",
    ],
    "soft-blur": [
        "blurry", "soft focus", "soft blur", "blurred", "out of focus", "softly blurred", "smooth and blurry",
        "a blur",
        "unfocused", "gaussian blur", "unsharp and soft", "very soft", "blur", "dreamy blur", "dreamy", "soft glow",
        "smeared",
        "not sharp",
    ],
    "pixelated": [
        "pixelated", "pixel art", "big pixels", "8 bit", "an 8-bit game", "blocky pixels", "a mosaic of squares",
        "square blocks", "low resolution pixels", "retro video game pixels", "pixels", "a pixel mosaic", "pixelate",
        "coarse blocks", "a blocky old computer game", "pixelation",
    ],
    "sketch": [
        "a pencil sketch", "a sketch", "a line drawing", "a pencil drawing", "a hand drawing", "drawn with a pencil",
        "sketched", "a charcoal drawing", "graphite lines", "drawn lines on paper", "an outline drawing", "a doodle",
        "graphite", "a graphite sketch", "pencil lines", "sketch art", "a drawing",
        "hand drawn with pencil on paper", "outlines",
    ],
    "neon": [
        "neon", "neon lines", "glowing neon", "neon outlines", "glowing edges", "a neon sign", "neon light tubes",
        "cyberpunk neon", "glowing lines", "neon glow", "cyan neon edges", "luminous outlines",
        "bright glowing contours",
        "fluorescent lines", "a glowing neon drawing",
    ],
    "posterised": [
        "a poster", "pop art", "posterised", "posterized", "few flat colours", "flat colors", "a screen print",
        "a comic poster", "posterize", "a pop art poster", "a silkscreen print", "reduced to few colors",
        "flat areas of color",
        "pop-art print", "a printed poster", "warhol pop art",
    ],
    "warm": [
        "warm", "golden hour", "sunset light", "warmer", "warm tones", "warm golden light", "warm orange light",
        "sunny",
        "evening sun", "a warm golden colour", "orange and golden", "golden", "warm colors", "late afternoon sun",
        "a warm look", "candle light", "autumn warmth",
    ],
    "cold": [
        "cold", "winter light", "cool tones", "colder", "cool", "icy", "cold blue light", "wintry", "frosty",
        "frozen",
        "cool blue tones", "chilly", "cold colors", "a cold winter day", "arctic", "icy blue", "cool light",
    ],
    "night": [
        "night", "midnight", "dark", "at night", "night time", "a dark night", "moonlight", "lit by the moon",
        "nighttime",
        "after dark", "the middle of the night", "a night scene", "darkness", "day for night", "nocturnal",
        "moonlit", "under the moon", "moon light",
    ],
    "blueprint": [
        "a blueprint", "cyanotype", "a cyanotype print", "blue and white", "blueprint", "an architect's blueprint",
        "a blue print", "blue monochrome", "prussian blue", "a technical blueprint", "shades of blue",
        "blueprint paper",
        "blue ink", "a blue cyanotype", "only blue and white", "blue with white lines", "white and blue",
    ],
    "thermal": [
        "a thermal camera", "a heat map", "thermal", "thermal imaging", "infrared heat", "a thermal image",
        "heat vision",
        "thermal vision", "a heatmap", "an infrared camera", "thermal colors", "seen by a heat camera", "body heat",
        "a thermal scan", "infrared",
    ],
    "vintage": [
        "vintage", "faded film", "faded", "a faded photo", "vintage film", "washed out", "a faded vintage photo",
        "an old faded picture", "seventies film", "bleached by the sun", "faded colors", "pale vintage colours",
        "a 1970s snapshot", "retro film", "matte faded film", "analog film",
    ],
    "vivid": [
        "vivid", "high contrast", "saturated", "vivid colors", "vibrant", "more saturated", "more contrast",
        "vibrant colours",
        "punchy", "intense colors", "strong contrast", "very colourful", "bold colors", "vivid and saturated",
        "strong colours",
        "rich saturated colors", "hyper saturated",
    ],
    "foggy": [
        "foggy", "misty", "fog", "thick fog", "in the mist", "covered in fog", "a misty morning", "haze",
        "hidden in white fog",
        "mist", "a foggy day", "dense fog", "veiled by mist", "full of fog", "milky mist", "a cloud of mist", "hazy",
    ],
}

PATTERNS = [
    "{}", "{}", "{} style", "in {} style", "{} look", "{} effect", "{} filter", "{} please", "{} image", "{} picture",
    "make it {}", "make this {}", "make the image {}", "make the photo {}", "make the picture look {}", "make it look {}",
    "make it look like {}", "make everything {}", "please make this {}", "can you make it {}", "could you make this {}",
    "turn it into {}", "turn this into {}", "turn the photo into {}", "turn the picture {}", "turn everything {}",
    "change it to {}", "change the picture to {}", "change the style to {}", "change this image into {}", "convert to {}",
    "convert it to {}", "convert the photo into {}", "convert this picture to {}", "transform it into {}",
    "transform the image to {}", "apply {}", "apply {} look", "apply a {} filter", "apply the {} effect", "add {}",
    "add a {} effect", "render it as {}", "render this in {}", "show it as {}", "show the scene in {}", "edit it to be {}",
    "edit the photo so that it is {}", "restyle it as {}", "restyle the image to {}", "redraw it as {}", "as {}", "in {}",
    "like {}", "with {}", "use {}", "the same picture in {}", "the same scene but {}", "put it in {}", "set it to {}",
    "the photo should be {}", "the image should look {}", "it should look like {}", "let it look like {}", "I need it {}",
    "we want this {}", "a version in {}", "this one in {}", "now {}", "go {}", "do {}", "create {} from this photo",
    "imagine it {}", "let us see it {}", "my photo but {}", "process it to {}",
]
PREFIXES = ["please", "hi,", "hello,", "ok,", "now", "could you", "I would", "we", "just", "hey", "for me,", "again,"]
SUFFIXES = [
    "please", "thanks", "thank you", "now", "and keep everything else the same", "but keep the subject in place",
    "while keeping the composition", "keep the people unchanged", "for my wall", "for the whole picture", "overall",
    "all over", "everywhere", "as a present", "if you can", "of the same scene", "with the same composition", "kind of",
    "for the album", "a lot", "this time", "without changing the shapes",
]
SUBJECTS = [
    "photo", "picture", "image", "scene", "dog", "cat", "house", "mountain", "car", "street", "portrait", "landscape",
    "river", "flower", "table", "sky", "face", "room", "tree", "beach", "shot", "photograph", "snapshot", "view",
]

# General sentences, so that the tokenizers know more words than the edits need.
GENERAL = [
    "change the background to a forest", "remove the person on the left", "add a hat to the cat", "make the car red",
    "replace the sky with a sunset over the mountains", "keep the face unchanged", "put a small dog on the chair",
    "what if this were a painting by an old master?", "more light, less contrast, softer shadows", "an oil painting",
    "in the style of a comic book cover", "it is raining in the street at night, neon signs", "a watercolor of a village",
    "move the tree to the right and make it green", "write the text hello on the sign", "a woman with a yellow umbrella",
    "I would like to have this one as a gift for my mother", "give the picture another version and a different mood",
    "the children are playing in the garden behind the house", "two birds over the sea in the early morning",
    "let them look into the camera and smile", "take away the glasses", "a bowl of fruit on a wooden table",
    "could this be shown from above, from below or from the side?", "zoom in", "crop the image to the person",
    "turn the day into a rainy evening in the city", "snow on the roof", "a bridge across the river, autumn leaves",
    "an astronaut riding a horse on the moon", "make her hair longer and darker", "his shirt should be white",
    "remove the text", "remove the background", "restore this old damaged photograph and colourise it", "sharpen it",
    "cartoon", "anime", "a statue made of marble", "made of glass", "a toy made from plastic bricks", "a paper cut",
    "they want something brighter", "give me, show me, tell me, help me", "these those that this there here where when",
    "never always often only also even every each both some many few", "one two three four five six seven eight nine ten",
]


def training_prompt(edit, rng):
    """A random prompt for an edit: a phrase in a pattern, with additions, lost words, capitals and punctuation."""
    phrase = rng.choice(PHRASES[edit])
    pattern = rng.choice(PATTERNS)
    if rng.random() < 0.3:
        for noun in ("photo", "picture", "image", "it", "this"):
            if f" {noun} " in pattern:
                pattern = pattern.replace(f" {noun} ", f" the {rng.choice(SUBJECTS)} ", 1).replace("the the", "the")
                break
    words = pattern.split(" ")
    if rng.random() < 0.25:  # lose some words of the pattern, never of the phrase
        words = [w for w in words if "{}" in w or rng.random() > 0.3]
    if rng.random() < 0.1 and "{}" in words:  # one strange word somewhere
        words.insert(rng.randrange(len(words) + 1), rng.choice(rng.choice(GENERAL).split()))
    prompt = " ".join(words).format(phrase)
    if rng.random() < 0.15:
        prompt = f"{rng.choice(PREFIXES)} {prompt}"
    if rng.random() < 0.25:
        prompt = f"{prompt}{rng.choice(['', ',', '.'])} {rng.choice(SUFFIXES)}"
    prompt = prompt.replace("a a ", "a ").replace("a an ", "an ").replace("the a ", "a ").replace("the an ", "an ")
    if rng.random() < 0.2:
        prompt = prompt.replace(" and ", " & ")
    case = rng.random()
    if case < 0.4:
        prompt = prompt[:1].upper() + prompt[1:]
    elif case < 0.45:
        prompt = prompt.upper()
    return prompt + rng.choice(["", "", "", ".", "!", "?"])


# --- evaluation only ---------------------------------------------------------------------------------------------
# Nothing below may be used in training.

HELD_OUT_PATTERNS = ["I would like this as {}", "give the picture a {} look please", "{} version"]

# Three whole prompts per edit, which the project's tests read as well.
with open(pathlib.Path(__file__).with_name("held_out.toml"), "rb") as file:
    HELD_OUT = tomllib.load(file)["held_out"]


def check():
    """Fails if a held-out prompt could come out of training_prompt unchanged."""
    patterns = {p.lower() for p in PATTERNS}
    assert not patterns & {p.lower() for p in HELD_OUT_PATTERNS}
    for edit, prompts in HELD_OUT.items():
        for prompt in prompts:
            plain = prompt.lower().strip(".!?")
            for phrase in PHRASES[edit]:
                assert phrase.lower() != plain, prompt
                if phrase.lower() in plain:
                    assert plain.replace(phrase.lower(), "{}", 1) not in patterns, prompt


check()

if __name__ == "__main__":
    import random

    rng = random.Random(0)
    for name in PHRASES:
        print(name, "|", " | ".join(training_prompt(name, rng) for _ in range(6)))
