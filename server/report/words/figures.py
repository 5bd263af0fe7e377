"""Texts inside the plots."""

WORDS = {
    "plot.guarantee": ("guarantee {epsilon}", "Garantie {epsilon}"),
    "plot.round": ("round", "Runde"),
    "plot.so-far": ("epsilon of one {u_one} so far", "bisheriges Epsilon je {u_name}"),
    "plot.epsilon": (
        "Epsilon by round of each site; the guarantee dashed",
        "Epsilon jedes Standorts nach Runden; die Garantie gestrichelt",
    ),
    "plot.delta": ("delta", "Delta"),
    "plot.of-one": ("epsilon of one {u_one}", "Epsilon je {u_name}"),
    "plot.curve": (
        "Epsilon of each site's run at every delta",
        "Epsilon des Laufs jedes Standorts bei jedem Delta",
    ),
    "plot.alarms": (
        "false alarms, of the {u_many} that were not used",
        "Fehlalarme, von den nicht verwendeten {u_dat_many}",
    ),
    "plot.found": ("found, of those used", "gefunden, von den verwendeten"),
    "plot.attack": (
        "What the best attack on each site's run finds at most",
        "Höchstens gefunden vom besten Angriff auf den Lauf jedes Standorts",
    ),
    "plot.auc": (
        "test AUC (0.5: guessing; 1: perfect)",
        "AUC auf Testdaten (0,5: geraten; 1: fehlerfrei)",
    ),
    "plot.auc.label": (
        "Test AUC of every model at every site",
        "AUC jedes Modells an jedem Standort auf Testdaten",
    ),
    "plot.dice": (
        "test Dice overlap (0: nowhere right; 1: every pixel)",
        "Dice-Überlappung auf Testdaten (0: nirgends richtig; 1: jedes Pixel)",
    ),
    "plot.dice.label": (
        "Test Dice overlap of every model at every site",
        "Dice-Überlappung jedes Modells an jedem Standort auf Testdaten",
    ),
    "plot.measured": (
        "AUC (0.5: guessing; 1: perfect), with its interval",
        "AUC (0,5: geraten; 1: fehlerfrei) mit Intervall",
    ),
    "plot.measured.label": (
        "Measured AUC of every class with its interval",
        "Gemessene AUC jeder Klasse mit Intervall",
    ),
    "plot.loss": ("mean training loss", "mittlerer Verlust im Training"),
    "plot.loss.label": (
        "Exact training loss of each site by round",
        "Exakter Trainingsverlust jedes Standorts nach Runden",
    ),
}
