"""Texts of the head of the page and of its first section, the answer for a data-protection officer."""

WORDS = {
    "title": ("Privacy-budget report: {name}", "Bericht zum Datenschutzbudget: {name}"),
    "head.run": ("run", "Lauf"),
    "head.times": (", from {began} to {ended}", ", von {began} bis {ended}"),
    "head.written": ("written by {program}, {time}", "erstellt von {program}, {time}"),
    "tag.exact": ("exact, simulation only", "exakt, nur in Simulationen"),
    "round.one": ("{n} round", "{n} Runde"),
    "round.many": ("{n} rounds", "{n} Runden"),
    "round.dative.one": ("{n} round", "{n} Runde"),
    "round.dative.many": ("{n} rounds", "{n} Runden"),
    "none": ("none", "entfällt"),
    "home": ("kept at the site", "bleibt am Standort"),
    "simulation": (
        "<b>This is a simulation, not a deployment.</b> All sites ran on one machine. The noise comes "
        "from a seed so that the run can be repeated: anyone who has the seed can remove the noise. "
        "The guarantees below are those that the same run would give with secret noise. Losses and "
        "metrics are exact, and no guarantee covers them.",
        "<b>Dies ist eine Simulation, kein Betrieb mit echten Kliniken.</b> Alle Standorte liefen auf "
        "einem Rechner. Das Rauschen stammt aus einem Startwert (Seed), damit sich der Lauf "
        "wiederholen lässt: Wer den Startwert kennt, kann das Rauschen entfernen. Die folgenden "
        "Garantien gälten für denselben Lauf mit geheimem Rauschen. Verlustwerte und Kennzahlen sind "
        "exakt und durch keine Garantie gedeckt.",
    ),
    "simulation.baselines": (
        "Baselines were trained on the same records, outside the privacy ledger.",
        "Vergleichsmodelle wurden auf denselben Datensätzen trainiert, außerhalb des Budgetbuchs.",
    ),
    "summary": ("1. Summary", "1. Zusammenfassung"),
    "summary.one-model": ("one shared model", "ein gemeinsames Modell"),
    "summary.models": (
        "a shared model for each of {n} kinds of image",
        "je ein gemeinsames Modell für {n} Arten von Bildern",
    ),
    "summary.sent": (
        ", in {n} of which anything was sent",
        " (in {n} davon wurde etwas gesendet)",
    ),
    "summary.trained": (
        "{took} of {all} sites trained {what} in {rounds}{sent}: {sites}.",
        "{took} von {all} Standorten haben in {rounds}{sent} {what} trainiert: {sites}.",
    ),
    "summary.promise": (
        "Images and labels stayed at the sites; section 4 lists everything that left them. Each site "
        "guarantees differential privacy for <b>one {u_one}</b>. If one {u_one} is added or removed, "
        "the probability of anything that the site's messages may show changes by at most a factor "
        "of e<sup>&epsilon;</sup>, plus &delta;. Smaller &epsilon; and &delta; mean a stronger "
        "guarantee. The largest &epsilon; of this run allows a factor of {factor}.",
        "Bilder und Befunde verblieben an den Standorten; Abschnitt 4 führt alles auf, was sie "
        "verlassen hat. Jeder Standort garantiert Differential Privacy für <b>{u_acc}</b>. Kommt "
        "{u_acc} hinzu oder fällt weg, so ändert sich die Wahrscheinlichkeit jedes möglichen Inhalts "
        "der Nachrichten des Standorts höchstens um den Faktor e<sup>&epsilon;</sup>, zuzüglich "
        "&delta;. Je kleiner &epsilon; und &delta;, desto stärker die Garantie. Das größte &epsilon; "
        "dieses Laufs lässt den Faktor {factor} zu.",
    ),
    "summary.kinds": (
        "Each site shared with the sites that have its kind of image and with no other: {models}.",
        "Jeder Standort teilte nur mit den Standorten, die dieselbe Art von Bildern haben: {models}.",
    ),
    "summary.kinds-later": (
        "All sites shared the first rounds of the encoder. After that, each site shared with the "
        "sites that have its kind of image and with no other: {models}.",
        "Die ersten Runden des Encoders teilten alle Standorte. Danach teilte jeder Standort nur mit "
        "den Standorten, die dieselbe Art von Bildern haben: {models}.",
    ),
    "summary.model-of": ("{file} is the model of {sites}", "{file} ist das Modell von {sites}"),
    "summary.own-copy": (
        "At the end each site trained its own copy, which never left it.",
        "Zuletzt trainierte jeder Standort seine eigene Kopie, die ihn nie verließ.",
    ),
    "summary.epsilon": (
        "<b>{pair}</b> per {u_one} at {sites}",
        "<b>{pair}</b> je {u_name} an den Standorten: {sites}",
    ),
    "summary.away": (
        "<b>{site} did not take part</b>: {reason}",
        "<b>{site} hat nicht teilgenommen</b>: {reason}",
    ),
    "summary.no-reason": ("no reason was given", "ohne Angabe von Gründen"),
    "attack": ("What an attacker could find", "Was ein Angreifer herausfinden könnte"),
    "attack.text": (
        "An attacker wants to know whether one {u_one} was used. It knows everything about all others "
        "and sees every message of the site. Whatever it does, some {u_many} that were not used are "
        "reported as used: false alarms. The table says how many of those that <b>were</b> used the "
        "best possible attack finds at most. Someone who sees no message at all finds as many as "
        "there are false alarms.",
        "Ein Angreifer will wissen, ob {u_acc} verwendet wurde. Über alle übrigen weiß er alles, und "
        "er sieht jede Nachricht des Standorts. Was er auch tut: Einige {u_many}, die nicht verwendet "
        "wurden, hält er für verwendet. Das sind Fehlalarme. Die Tabelle gibt an, wie viele der "
        "tatsächlich <b>verwendeten</b> der bestmögliche Angriff höchstens findet. Wer gar keine "
        "Nachricht sieht, findet so viele, wie er Fehlalarme zulässt.",
    ),
    "attack.found": (
        "found, of the {u_many} that were used",
        "gefunden, von den verwendeten {u_dat_many}",
    ),
    "attack.at": ("at {alarms}<br>false alarms", "bei {alarms}<br>Fehlalarmen"),
    "attack.lifetime": (
        "all runs of its lifetime budget, a looser bound",
        "alle Läufe des Gesamtbudgets, eine gröbere Schranke",
    ),
    "attack.figure": (
        "No attack on this run lies above its line (computed from the whole privacy curve of all "
        "admitted steps, in both directions). The dotted line is a guess without any message. &mu; "
        "sums up a line in one number: no attack finds more than the best one on a single release "
        "with Gaussian noise in which one {u_one} moves the result by &mu; standard deviations, but "
        "for one {u_one} in a million.",
        "Kein Angriff auf diesen Lauf liegt über seiner Linie (berechnet aus der vollständigen "
        "Privacy-Kurve aller bewilligten Schritte, in beiden Richtungen). Die gepunktete Linie ist "
        "Raten ohne jede Nachricht. &mu; fasst eine Linie in einer Zahl zusammen: Kein Angriff findet "
        "mehr als der beste auf eine einzelne Veröffentlichung mit Gauß-Rauschen, in der {u_one} das "
        "Ergebnis um &mu; Standardabweichungen verschiebt, abgesehen von {u_dat} unter einer Million.",
    ),
    "attack.figure-shared": (
        "The lines hold as long as no more sites collude than the next table says.",
        "Die Linien gelten, solange sich nicht mehr Standorte zusammentun, als die nächste Tabelle "
        "angibt.",
    ),
    "honest": ("Who has to be honest", "Wer sich redlich verhalten muss"),
    "honest.shared": (
        "Each site added only its share of the noise. <b>The &epsilon; above, which the ledgers are "
        "charged, holds as long as no more sites than in the first column collude with the "
        "coordinator.</b> If all other sites did, the last column would hold instead. A site relies "
        "on the others for the difference, and its policy.yaml limits it "
        "(<code>max_epsilon_all_collude</code>).",
        "Jeder Standort hat nur seinen Anteil des Rauschens hinzugefügt. <b>Das obige &epsilon;, das "
        "den Budgetbüchern belastet wird, gilt, solange sich nicht mehr Standorte, als die erste "
        "Spalte angibt, mit der Koordinationsstelle zusammentun.</b> Täten es alle anderen, so gälte "
        "die letzte Spalte. Um diesen Unterschied verlässt sich ein Standort auf die anderen; seine "
        "policy.yaml begrenzt ihn (<code>max_epsilon_all_collude</code>).",
    ),
    "honest.own": (
        "Each site added all of its noise, so that the &epsilon; above holds whoever colludes with "
        "the coordinator. Against the coordinator and few sites, who see sums over all sites alone, "
        "&epsilon; is smaller.",
        "Jeder Standort hat sein gesamtes Rauschen selbst hinzugefügt. Das obige &epsilon; gilt daher "
        "unabhängig davon, wer sich mit der Koordinationsstelle zusammentut. Gegenüber der "
        "Koordinationsstelle und wenigen Standorten, die nur Summen über alle Standorte sehen, ist "
        "&epsilon; kleiner.",
    ),
    "honest.colluding": ("colluding<br>sites", "Standorte, die<br>sich zusammentun"),
    "honest.few": (
        "&epsilon; against the coordinator<br>and so many sites",
        "&epsilon; gegenüber Koordinationsstelle<br>und so vielen Standorten",
    ),
    "honest.all": (
        "&epsilon; against the coordinator<br>and all other sites",
        "&epsilon; gegenüber Koordinationsstelle<br>und allen anderen Standorten",
    ),
    "several.shared": (
        "<b>A person with records at several sites has weaker protection, and not the sum of the "
        "sites' epsilons and deltas</b>: in training the sites share the noise, so that m {u_many} at "
        "m sites count like m at one site. For m of them &epsilon; is m times as large, and &delta; "
        "grows faster than m.",
        "<b>Wer Daten an mehreren Standorten hat, ist schwächer geschützt, und zwar nicht nach der "
        "Summe der &epsilon; und &delta;</b>: Im Training teilen sich die Standorte das Rauschen; m "
        "{u_many} an m Standorten zählen daher wie m an einem Standort. Für m von ihnen ist &epsilon; "
        "m-mal so groß, und &delta; wächst schneller als m.",
    ),
    "several.counts": (
        "Only the cost of {phases} adds up over the sites, because each site adds all of the noise to "
        "these counts.",
        "Nur die Kosten von {phases} addieren sich über die Standorte, denn zu diesen Zählungen fügt "
        "jeder Standort das gesamte Rauschen hinzu.",
    ),
    "several.sum": (
        "<b>For a person with records at several sites, the epsilons of these sites add up</b>, and "
        "so do the deltas. One {u_one} at each of the {n} sites adds up to {pair}.",
        "<b>Für Personen mit Daten an mehreren Standorten addieren sich die &epsilon; dieser "
        "Standorte</b>, ebenso die &delta;. {u_one_cap} an jedem der {n} Standorte ergibt zusammen "
        "{pair}.",
    ),
    "several.images": (
        "A person with several images at one site has weaker protection than a single image: for m "
        "images &epsilon; is m times as large, and &delta; grows faster than m.",
        "Eine Person mit mehreren Bildern an einem Standort ist schwächer geschützt als ein einzelnes "
        "Bild: Für m Bilder ist &epsilon; m-mal so groß, und &delta; wächst schneller als m.",
    ),
    "facts.unit": ("unit of privacy", "geschützte Einheit"),
    "facts.one": ("one {u_one}", "{u_one}"),
    "facts.largest": ("largest at one site", "Höchstwert an einem Standort"),
    "facts.every": ("one {u_one} at every site", "{u_one} an jedem Standort"),
    "facts.noise": ("noise", "Rauschen"),
    "noise.seeded": ("seeded", "aus Startwert"),
    "noise.secure": ("secure", "sicher"),
    "noise.seeded.note": ("can be removed with the seed", "lässt sich mit dem Startwert entfernen"),
    "noise.secure.note": (
        "from a cryptographic generator",
        "aus einem kryptografischen Zufallsgenerator",
    ),
}
