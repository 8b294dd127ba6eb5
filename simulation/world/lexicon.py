"""Words of the synthetic world: cues that carry meaning, and filler that does not."""

CUES: dict[str, tuple[str, ...]] = {
    tag: tuple(words.split())
    for tag, words in {
        "sci-fi": "starship android wormhole asteroid cyborg galaxy hologram orbit spaceport clone "
        "telescope alien rocket terraforming teleporter lunar nebula robotics",
        "based on a book": "bestseller novelist paperback chapters manuscript adaptation bookshop "
        "author trilogy narrator prose librarian epilogue publisher storyteller foreword anthology "
        "novella",
        "comedy": "pranks banter slapstick hijinks punchline mishaps giggles sitcom clown goofball "
        "parody wisecracks mixups hilarity jester blunders laughter karaoke",
        "action": "explosions stuntman chase commando helicopter gunfight karate bodyguard heist "
        "showdown getaway mercenary ambush sniper brawl motorcycle rescue detonator",
        "twist ending": "revelation misdirection unmasking impostor decoy doublecross hoax puzzle "
        "reversal switcheroo clues alibi masquerade ruse unraveling disguise riddle enigma",
        "dystopia": "surveillance curfew regime rationing checkpoint propaganda overseers ghetto "
        "dictator informants quarantine uprising barcode enforcers wasteland labor bunker conformity",
        "dark comedy": "gallows undertaker morbid hearse coffin poisoning sardonic funeral macabre "
        "mortician deadpan crematorium irony autopsy eulogy grotesque casket gravedigger",
        "classic": "vintage monochrome matinee restored silent celluloid ballroom goldenage "
        "projectionist overture phonograph newsreel timeless marquee vaudeville technicolor usher "
        "orchestra",
        "psychology": "therapist obsession amnesia paranoia hypnosis delusion insomnia asylum "
        "trauma subconscious nightmares hallucination psychiatrist phobia neurosis dreams patient "
        "memory",
        "fantasy": "dragon wizard kingdom sorcerer elves enchanted unicorn prophecy goblin amulet "
        "witch potion spell troll castle fairies quest griffin",
        "romance": "sweethearts wedding honeymoon kiss courtship bouquet valentine fiance "
        "heartbreak serenade flirting engagement bride longing soulmates proposal embrace candlelight",
        "thought-provoking": "philosophy mortality ethics paradox existence consciousness dilemma "
        "meditation conscience freewill metaphysics skeptic questions truth meaning doubt wisdom "
        "reflection",
        "social commentary": "inequality poverty protest prejudice gentrification strike immigrants "
        "activism unions segregation slums injustice corruption welfare privilege landlord "
        "evictions picket",
        "violence": "bloodshed massacre torture gangsters revenge stabbing cartel brutality "
        "execution butcher carnage gore hitman slaughter vendetta machete mobsters warlord",
        "true story": "biography archives testimony documentary eyewitness memoir headlines "
        "reenactment historian courtroom veteran survivor interviews chronicle transcript letters "
        "diaries expedition",
    }.items()
}

OPINIONS: dict[int, tuple[str, ...]] = {
    strength: tuple(words.split())
    for strength, words in {
        -2: "terrible awful dreadful horrible abysmal useless atrocious worthless appalling dismal "
        "disastrous pathetic hideous unusable infuriating shoddy",
        -1: "disappointing mediocre weak clumsy flimsy dull noisy uneven cheap bland lacking tiresome "
        "awkward sluggish underwhelming flawed",
        0: "average ordinary passable adequate standard plain acceptable typical unremarkable usual "
        "moderate neutral common fair middling basic",
        1: "good pleasant solid handy nice reliable sturdy useful decent comfortable tidy neat "
        "satisfying smooth practical likable",
        2: "excellent superb wonderful brilliant outstanding perfect amazing flawless stunning "
        "magnificent fantastic exceptional delightful splendid marvelous glorious",
    }.items()
}

PRODUCTS = tuple(
    "kettle blender toaster lamp backpack suitcase umbrella keyboard headset speaker charger mattress "
    "pillow blanket chair desk bookshelf drill hammer ladder tent stove lantern bicycle helmet scooter "
    "camera tripod printer monitor router vacuum heater fan razor toothbrush watch wallet jacket boots "
    "sandals gloves scarf teapot skillet saucepan grill cooler thermos notebook stapler flashlight "
    "treadmill dumbbell guitar ukulele microphone aquarium birdhouse wheelbarrow".split()
)
ASPECTS = tuple(
    "design finish handle battery packaging manual weight color fabric zipper lid button screen strap "
    "warranty delivery price sound motor hinge texture cable switch base grip stitching software menu "
    "lining surface".split()
)

SUBJECTS = tuple(
    "mayor museum school hospital library farmers bakers students teachers nurses builders firefighters "
    "senator governor orchestra theater zoo airline railway university company bank court council "
    "engineers scientists doctors artists drivers pilots athletes chefs fishermen gardeners volunteers "
    "parents tenants ranchers miners sailors".split()
)
VERBS: dict[str, str] = dict(
    pair.split("/")
    for pair in (
        "open/opened close/closed sell/sold buy/bought repair/repaired paint/painted expand/expanded "
        "replace/replaced defend/defended praise/praised reject/rejected support/supported test/tested "
        "launch/launched cancel/canceled delay/delayed finance/financed inspect/inspected move/moved "
        "design/designed protect/protected restore/restored review/reviewed study/studied trade/traded "
        "welcome/welcomed honor/honored ban/banned share/shared rebuild/rebuilt"
    ).split()
)
OBJECTS = tuple(
    "bridge harbor stadium garden market tunnel playground fountain statue parade festival orchard "
    "highway airport clinic cafeteria vineyard greenhouse lighthouse ferry subway trolley dam reservoir "
    "budget treaty contract pension uniform curriculum vaccine satellite turbine windmill sawmill "
    "brewery bakery monument mural mosaic carousel boardwalk pavilion courthouse warehouse dormitory "
    "observatory planetarium aqueduct cathedral".split()
)

ADJECTIVES = tuple(
    "quiet young stubborn curious weary gentle restless lonely proud cheerful humble clever nervous "
    "famous retired wealthy hopeful bitter loyal shy eager cautious brave ambitious graceful reckless "
    "patient sleepy generous honest anxious jealous polite tired playful solemn forgetful talkative "
    "sensible dreamy grumpy thrifty clumsy gifted modest gloomy jolly fearless drowsy lively mellow earnest "
    "dutiful scruffy elegant stern witty tactful wistful frank tidy timid sturdy sly tender vain zealous "
    "cranky dapper frugal merry plucky rowdy sincere unlucky weathered worldly youthful amiable blunt "
    "bashful candid daring devoted".split()
)
PEOPLE = tuple(
    "sailor teacher nurse farmer painter carpenter baker clerk waiter pianist gardener lawyer cook "
    "soldier tailor journalist mechanic student widow orphan neighbor cousin barber shepherd dentist "
    "potter florist janitor plumber violinist referee cashier surveyor blacksmith weaver jeweler "
    "accountant butler courier ferryman optician locksmith glazier mason roofer welder typist translator "
    "archivist beekeeper boxer brewer broker cartographer chauffeur chemist cobbler conductor cyclist "
    "dancer diplomat diver drummer editor falconer fiddler geologist goalkeeper grocer guard harpist hunter "
    "inventor judge juggler lifeguard lumberjack magician mathematician midwife miller monk nanny "
    "nurseryman pastor pharmacist philosopher pilgrim poet postman printer ranger sculptor secretary "
    "singer skater sheriff swimmer tinkerer trumpeter tutor vet watchmaker zoologist".split()
)
SETTINGS = tuple(
    "village island harbor valley suburb desert forest hotel train farm seaside mountain prairie city "
    "monastery lighthouse factory cabin mansion campus hospital market riverbank vineyard marsh canyon "
    "lakeside rooftop basement attic airfield alley arcade bakery barn bay boathouse border bridge bungalow "
    "camp castle cellar chapel circus clinic convent courtyard dairy depot dock dunes embassy estate fjord "
    "garage garden glacier hamlet hillside inn jungle kiosk lagoon library meadow mill mine moor nursery "
    "oasis orchard outpost parish park pier plateau pond quarry ranch reef savanna shipyard stable "
    "studio swamp tavern theater tower valley waterfall wharf zoo".split()
)
TIMES = tuple(
    "spring summer autumn winter January February March April May June July August September October "
    "November December".split()
)
FIRST_NAMES = tuple(
    "Alma Amos Anton Aria Basil Bela Bruno Carla Cedric Celia Clara Conrad Daphne Dario Delia Edgar "
    "Edith Elias Elsa Emil Esther Ezra Fabian Felix Flora Frida Gideon Greta Gustav Hanna Harold Hazel "
    "Hugo Ida Igor Ines Irma Isaac Ivan Jasper Joel Jonas Judith Julia Karl Kira Klaus Lars Laura Leon "
    "Lydia Magda Marco Martha Max Mina Moses Nadia Nestor Nina Nora Olga Oscar Otto Paula Percy Petra "
    "Quentin Rafael Ramona Rita Roland Rosa Ruben Sabina Saul Selma Silas Simon Sonia Stella Sylvia "
    "Tamara Theo Tobias Ulrich Una Vera Victor Viola Walter Wanda Xenia Yusuf Yvonne Zelda Zora".split()
)


def _compounds(starts: str, ends: str) -> tuple[str, ...]:
    return tuple(start + end for start in starts.split() for end in ends.split())


SURNAMES = _compounds(
    "Ash Black Brook Carl Dale Elm Fair Gold Hart Hol Lock Mar Nor Oak Rad Stan Thorn Wal West Whit",
    "berg by den ford ham ley man ridge son stone wick worth",
)
TOWNS = _compounds(
    "Bar Cal Dun East Fern Glen High Kings Lang Mill New North Old Port Red Salt South Spring Stone Wind",
    "bourne burgh bury dale field gate haven mere mouth port ton view",
)
