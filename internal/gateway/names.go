package gateway

import (
	"crypto/rand"
	"math/big"
)

// Words of generated names: two joined by a hyphen have at most 19 letters,
// the shortest limit that any gateway of the line puts on a name.
var (
	adjectives = [...]string{
		"able", "agile", "amber", "ample", "azure", "bold", "brave", "bright", "brisk", "calm", "candid", "clear", "clever", "cosmic",
		"crisp", "daring", "eager", "early", "fair", "fancy", "fleet", "fond", "fresh", "gentle", "giant", "glad", "golden", "grand",
		"happy", "hardy", "honest", "humble", "icy", "ideal", "jolly", "keen", "kind", "large", "light", "lively", "loyal", "lucky",
		"lunar", "mellow", "merry", "mighty", "modest", "neat", "nimble", "noble", "novel", "patient", "plucky", "polite", "prime",
		"proud", "quick", "quiet", "rapid", "ready", "regal", "robust", "rosy", "royal", "rustic", "sage", "sharp", "shiny", "silent",
		"silver", "simple", "smart", "smooth", "snowy", "solar", "solid", "spry", "stable", "steady", "stellar", "sturdy", "subtle",
		"sunny", "super", "sweet", "swift", "tidy", "tough", "tranquil", "trusty", "upbeat", "valid", "vast", "vital", "vivid", "warm",
		"wise", "witty", "young", "zesty",
	}
	nouns = [...]string{
		"acorn", "anchor", "antelope", "aspen", "badger", "bamboo", "beacon", "beetle", "birch", "bison", "breeze", "brook", "canyon",
		"cedar", "cheetah", "clover", "comet", "condor", "coral", "cougar", "coyote", "crane", "cricket", "dolphin", "dove", "dragon",
		"eagle", "ember", "falcon", "fern", "ferret", "finch", "fjord", "forest", "fox", "gazelle", "gecko", "glacier", "grove", "gull",
		"harbor", "hare", "hawk", "hazel", "heron", "hill", "ibex", "island", "jackal", "jaguar", "kestrel", "koala", "lagoon", "lark",
		"lemur", "leopard", "lily", "lion", "lynx", "maple", "marlin", "meadow", "meteor", "moose", "nebula", "newt", "oak", "ocean",
		"orca", "osprey", "otter", "owl", "panda", "panther", "pebble", "pelican", "pine", "planet", "puffin", "puma", "quail", "quartz",
		"rabbit", "raven", "reef", "river", "robin", "salmon", "seal", "shark", "sparrow", "spruce", "stork", "summit", "swan", "tiger",
		"toucan", "trout", "tulip", "turtle", "valley", "viper", "walrus", "whale", "willow", "wolf", "wombat", "wren", "zebra",
	}
)

// newName returns a random name of two words.
func newName() string { return pick(adjectives[:]) + "-" + pick(nouns[:]) }

func pick(words []string) string {
	n, err := rand.Int(rand.Reader, big.NewInt(int64(len(words))))
	if err != nil {
		return words[0] // crypto/rand does not fail (Go 1.24)
	}
	return words[n.Int64()]
}
