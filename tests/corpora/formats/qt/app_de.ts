<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="de_DE" sourcelanguage="en">
<context><name>Main</name>
<message><source>The red door of the house is open</source><translation>Die rote Tür des Hauses ist offen</translation></message>
<message><source>Nobody has translated this</source><translation type="unfinished"></translation></message>
</context></TS>
