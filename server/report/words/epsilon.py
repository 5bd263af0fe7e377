"""Texts on epsilon: the guarantee in full, the budget of each site, and epsilon by round."""

WORDS = {
    "epsilon": ("2. Epsilon and the unit of privacy", "2. Epsilon und geschützte Einheit"),
    "full": ("The guarantee in full", "Die Garantie im Wortlaut"),
    "full.old": (
        "The report is of a version that did not state it.",
        "Der Bericht stammt von einer Version, die dazu nichts angab.",
    ),
    "full.variant": ("variant", "Variante"),
    "full.variant.text": (
        "(&epsilon;, &delta;)-differential privacy, also called approximate differential privacy",
        "(&epsilon;, &delta;)-Differential Privacy, auch „approximate differential privacy“ genannt",
    ),
    "full.neighbours": ("neighbouring sets", "benachbarte Datenbestände"),
    "full.neighbours.text": (
        "{adjacency}; the records of each site are a set of their own",
        "{adjacency}; die Datensätze jedes Standorts bilden einen eigenen Bestand",
    ),
    "full.unit.text": ("one {u_one} at a site", "{u_one} an einem Standort"),
    "full.release": ("one release", "eine Veröffentlichung"),
    "full.release.text": (
        "everything that a site sends in this run, repeated rounds included, and everything that is "
        "made of it, such as the model: &epsilon; and &delta; are for all of it together",
        "alles, was ein Standort in diesem Lauf sendet, wiederholte Runden eingeschlossen, und alles, "
        "was daraus entsteht, etwa das Modell: &epsilon; und &delta; gelten für das Ganze",
    ),
    "full.runs": ("other runs", "weitere Läufe"),
    "full.runs.text": (
        "each costs its own &epsilon;; the lifetime limit below is for all of them",
        "jeder kostet sein eigenes &epsilon;; das Gesamtbudget (unten) gilt für alle zusammen",
    ),
    "full.accountant": ("accountant", "Rechenverfahren"),
    "full.why": ("why this epsilon", "Begründung für &epsilon;"),
    "not-stated": ("not stated", "keine Angabe"),
    "word": ("the coordinator's word", "Angabe der Koordinations&shy;stelle"),
    "budget": ("Budget of each site", "Budget jedes Standorts"),
    "site": ("site", "Standort"),
    "sites": ("sites", "Standorte"),
    "budget.run": ("{symbol}<br>this run", "{symbol}<br>dieser Lauf"),
    "budget.all": ("{symbol}<br>all runs", "{symbol}<br>alle Läufe"),
    "budget.limit": ("{symbol}<br>lifetime limit", "{symbol}<br>Gesamtbudget"),
    "budget.gauge": (
        "lifetime &epsilon;,<br>spent and left",
        "Gesamtbudget,<br>verbraucht und übrig",
    ),
    "budget.spent": ("{spent} spent, {left} left", "{spent} verbraucht, {left} übrig"),
    "budget.filter": ("{used} of the filter used", "{used} des Filters verbraucht"),
    "budget.warning": ("Warning:", "Warnung:"),
    "budget.key.earlier": ("earlier runs", "frühere Läufe"),
    "budget.key.run": ("this run", "dieser Lauf"),
    "budget.key.left": ("left", "übrig"),
    "budget.rounding": (
        "Epsilons and deltas are rounded up; the rest of a budget is rounded down. Accountant: "
        "{accountants}.",
        "&epsilon; und &delta; sind aufgerundet, Restbudgets abgerundet. Rechenverfahren: "
        "{accountants}.",
    ),
    "budget.others": (
        "The same steps by other accountants, which share no code with it: {found}. All are upper "
        "bounds; the first is charged, and a site refuses a run in which another proves more.",
        "Dieselben Schritte nach anderen Rechenverfahren, die keinen Programmcode mit ihm teilen: "
        "{found}. Alle sind obere Schranken. Belastet wird die erste; einen Lauf, für den ein anderes "
        "Verfahren mehr nachweist, lehnt der Standort ab.",
    ),
    "budget.reserved": (
        "Each site reserved the budget of the whole schedule before its first gradient. The run is "
        "charged in full even if it stops early; nothing is handed back. Over several runs, whichever "
        "server asked for them, epsilons and deltas add up{filter}.",
        "Jeder Standort hat das Budget des gesamten Ablaufplans vor dem ersten Gradienten reserviert. "
        "Der Lauf wird voll belastet, auch wenn er vorzeitig endet; nichts wird zurückgebucht. Über "
        "mehrere Läufe hinweg, gleich welcher Server sie angefordert hat, addieren sich &epsilon; und "
        "&delta;{filter}.",
    ),
    "budget.rdp": (
        "; at {sites} the R&eacute;nyi divergences of the runs add up instead, at one order that was "
        "fixed before the first run (Feldman and Zrnic 2021). The guarantee for all runs together is "
        "then the lifetime limit, however few runs there were",
        "; an den Standorten {sites} addieren sich stattdessen die R&eacute;nyi-Divergenzen der "
        "Läufe, bei einer vor dem ersten Lauf festgelegten Ordnung (Feldman und Zrnic 2021). Die "
        "Garantie für alle Läufe zusammen ist dann das Gesamtbudget, auch nach wenigen Läufen",
    ),
    "by-round": ("Epsilon by round", "Epsilon nach Runden"),
    "by-round.figure": (
        "<b>Lines with markers: progress of the plan, not a guarantee.</b> Sites with equal plans "
        "share a line. Dashed: the guaranteed &epsilon; of the whole run. It lies above the last "
        "round (dotted line) because spare rounds, which are kept for repeating a lost round, are "
        "charged whether they are used or not.",
        "<b>Linien mit Markierungen: Fortschritt des Plans, keine Garantie.</b> Standorte mit gleichem "
        "Plan teilen sich eine Linie. Gestrichelt: das garantierte &epsilon; des gesamten Laufs. Es "
        "liegt über dem der letzten Runde (gepunktet), weil Reserverunden, mit denen sich eine "
        "verlorene Runde wiederholen lässt, auch ungenutzt belastet werden.",
    ),
    "curve": ("Epsilon at other deltas", "Epsilon bei anderem Delta"),
    "curve.figure": (
        "Every point of a line is a guarantee of the whole run, and all points hold at once: a "
        "smaller &delta; goes with a larger &epsilon;. The large marker is the pair that is charged "
        "to the site's budget. All points are computed from the plan alone.",
        "Jeder Punkt einer Linie ist eine Garantie für den gesamten Lauf, und alle gelten zugleich: "
        "Zu einem kleineren &delta; gehört ein größeres &epsilon;. Die große Markierung ist das Paar, "
        "mit dem das Budget belastet wird. Alle Punkte folgen allein aus dem Plan.",
    ),
}
