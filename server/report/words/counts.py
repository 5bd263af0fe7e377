"""Texts of a run that counts records and trains nothing."""

WORDS = {
    "statistics": (
        "Statistics of the records, with noise",
        "Statistik der Datensätze, mit Rauschen",
    ),
    "statistics.text": (
        "Each site counted its records once and sent the counts with noise: together {epsilon}, which "
        "is the &epsilon; in section 1. Nothing was trained. The column &plusmn; says how far a count "
        "is from the true one at most, with a probability of 95&nbsp;%: a count that is smaller than "
        "that may be nothing but noise. A record is one {u_one}.",
        "Jeder Standort hat seine Datensätze einmal gezählt und die Zählungen mit Rauschen gesendet: "
        "zusammen {epsilon}, das &epsilon; in Abschnitt 1. Trainiert wurde nichts. Die Spalte "
        "&plusmn; gibt an, wie weit eine Zählung mit einer Wahrscheinlichkeit von 95&nbsp;% höchstens "
        "von der wahren entfernt ist: Eine kleinere Zählung kann bloßes Rauschen sein. Ein Datensatz "
        "ist {u_one}.",
    ),
    "statistics.patients": (
        "The images of a patient share its count equally.",
        "Die Bilder einer Person teilen sich deren Zählung zu gleichen Teilen.",
    ),
    "statistics.none": (
        "No site sent counts; section 6 says why.",
        "Kein Standort hat Zählungen gesendet; Abschnitt 6 nennt die Gründe.",
    ),
    "statistics.counted": (
        "{took} of {all} sites counted their records once; nothing was trained: {sites}.",
        "{took} von {all} Standorten haben ihre Datensätze einmal gezählt; trainiert wurde nichts: "
        "{sites}.",
    ),
    "statistics.no-round": (
        "There was no round: all counts left in one answer.",
        "Es gab keine Runde: Alle Zählungen gingen in einer Antwort hinaus.",
    ),
    "statistics.mechanism": (
        "All counts of a site are released together, with the noise of one Gaussian mechanism without "
        "sampling; its standard deviation is the <i>noise multiplier</i> times the <i>max. norm</i>, "
        "by which one {u_one} changes the counts at most (L2).",
        "Alle Zählungen eines Standorts werden zusammen freigegeben, mit dem Rauschen eines "
        "Gauß-Mechanismus ohne Stichprobe; seine Standardabweichung ist der <i>Rauschfaktor</i> mal "
        "der <i>max. Norm</i>, um die {u_one} die Zählungen höchstens ändert (L2).",
    ),
    "statistics.each": ("&plusmn;<br>each", "&plusmn;<br>je Zahl"),
    "statistics.all": ("all", "alle"),
    "statistics.sure": ("&plusmn;<br>all", "&plusmn;<br>alle"),
    "statistics.train": ("training", "Training"),
    "statistics.val": ("validation", "Validierung"),
    "statistics.test": ("testing", "Test"),
    "statistics.class": ("class {n}", "Klasse {n}"),
    "statistics.more": (
        "{n} more rows are in report.json",
        "{n} weitere Zeilen stehen in report.json",
    ),
    "statistics.label": ("label {n}", "Befund {n}"),
    "statistics.sides": ("longest side, pixels", "längste Seite, Pixel"),
    "statistics.images": ("images of a patient", "Bilder einer Person"),
    "statistics.greys": (
        "share of the pixels from so many % grey value on, %",
        "Anteil der Pixel ab so viel % Grauwert, in %",
    ),
    "statistics.range": ("{low} to {high}", "{low} bis {high}"),
    "statistics.up-to": ("up to {high}", "bis {high}"),
    "statistics.from": ("{low} or more", "ab {low}"),
    "statistics.figure": (
        "Share of the pixels by grey value, from black (0) to white (1): of the values of a byte, or "
        "between an image's own darkest and brightest pixel where it has other values. The bands "
        "contain the noise with a probability of 95&nbsp;% at each point.",
        "Anteil der Pixel nach Grauwert, von Schwarz (0) bis Weiß (1): nach den Werten eines Bytes "
        "oder, bei anderen Werten, zwischen dem dunkelsten und dem hellsten Pixel des Bildes. Die "
        "Bänder enthalten das Rauschen an jeder Stelle mit einer Wahrscheinlichkeit von 95&nbsp;%.",
    ),
    "plot.grey": ("grey value", "Grauwert"),
    "plot.pixels": ("share of the pixels", "Anteil der Pixel"),
    "plot.greys": (
        "Share of the pixels by grey value, of each site",
        "Anteil der Pixel nach Grauwert, je Standort",
    ),
}
